"""All campaigns, in the order of the scoreboard."""

from tests.faults import damage, kills, mats, pictures, readers, settings
from tests.faults.campaign import Campaign

ALL: list[Campaign] = [
    *kills.campaigns(),
    *damage.campaigns(),
    *pictures.campaigns(),
    *readers.campaigns(),
    *mats.campaigns(),
    *settings.campaigns(),
]
BY_NAME = {campaign.name: campaign for campaign in ALL}
