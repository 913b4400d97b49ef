"""A process that makes files: it reads masters from the campaign, makes their files and puts them at the target.

Place --> begin() once in each process        Task --> make_in_place() --> Made x files
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass

from sdbatch.deliver.making import Made, Task, make_files
from sdbatch.driver.deliver_marks import packet_for
from sdbatch.fetch.pictures import decode_image
from sdbatch.job import Storage
from sdbatch.storage import Store, open_campaign


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where masters come from and files go to.

    Attributes:
        campaign: URL of the campaign.
        campaign_storage: Access to it.
        files: URL that files are put under.
        files_storage: Access to it.
    """

    campaign: str
    campaign_storage: Mapping[str, Storage]
    files: str
    files_storage: Mapping[str, Storage]


_STORES: list[Store] = []


def begin(place: Place, is_own_process: bool = True) -> None:
    """Open both stores; a signal to stop is the driver's affair, which waits for what is in hand."""
    if is_own_process:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    _STORES[:] = [
        open_campaign(place.campaign, place.campaign_storage),
        open_campaign(place.files, place.files_storage),
    ]


def make_in_place(task: Task) -> list[Made]:
    """Make all files of one master; see `make_files`."""
    campaign, files = _STORES
    return make_files(task, campaign.read, decode_image, packet_for, files.put)
