"""All campaigns, in the order of the scoreboard."""

from tests.faults import kills, signals
from tests.faults.campaign import Campaign

ALL: list[Campaign] = [*kills.campaigns(), *signals.campaigns()]
BY_NAME = {campaign.name: campaign for campaign in ALL}
