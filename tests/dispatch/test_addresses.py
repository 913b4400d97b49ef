"""An address of another kind of server is refused at once, by name; Ray itself tries some of them for a minute."""

from __future__ import annotations

import pytest

from sdbatch.dispatch.ray_joined import join
from sdbatch.dispatch.submit import Cluster
from sdbatch.errors import ClusterRefused, UserError


@pytest.mark.parametrize("allow_open", [False, True])
@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "https://head:8265", "ray://127.0.0.1:1"])
def test_a_run_joins_heads_alone(address: str, allow_open: bool) -> None:
    with pytest.raises(ClusterRefused, match=f"RAY_ADDRESS {address}: a head is joined by HOST:PORT"):
        join(address, allow_open=allow_open)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "head", "auto", "ray://127.0.0.1:1", "ftp://head:8265", ""])
def test_a_job_is_sent_to_job_servers_alone(address: str) -> None:
    with pytest.raises(UserError, match=f"address '{address}': a job server's begins with http://"):
        Cluster(address)
