"""All campaigns, in the order of the scoreboard."""

from tests.faults import disks, equality, growth, kills, numbers, selftest, signals
from tests.faults.campaign import Campaign

_ROOMS = (kills, signals, disks, numbers, growth, equality)
ALL: list[Campaign] = [campaign for room in _ROOMS for campaign in room.campaigns()]
BY_NAME = {campaign.name: campaign for campaign in (*ALL, selftest.CAMPAIGN)}
