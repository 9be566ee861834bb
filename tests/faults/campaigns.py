"""All campaigns, in the order of the scoreboard."""

from tests.faults import kills
from tests.faults.campaign import Campaign

ALL: list[Campaign] = [*kills.campaigns()]
BY_NAME = {campaign.name: campaign for campaign in ALL}
