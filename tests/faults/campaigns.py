"""All campaigns, in the order of the scoreboard."""

from tests.faults import (
    damage,
    disks,
    equality,
    growth,
    kills,
    mats,
    numbers,
    pictures,
    readers,
    selftest,
    settings,
    signals,
)
from tests.faults.campaign import Campaign

_FILES = (
    *(kills, signals, disks, numbers, growth, equality),
    *(damage, pictures, readers, mats, settings),
)
ALL: list[Campaign] = [campaign for file in _FILES for campaign in file.campaigns()]
BY_NAME = {campaign.name: campaign for campaign in (*ALL, selftest.CAMPAIGN)}
