"""Scans on a Dask cluster: a real one of two worker processes on this machine, one of which is killed in mid-run."""

import os
import sys
import threading
import time

import psutil
import pytest

from cohorts import DEADLOCK, POSIX, pipe, rows, run, scan, segmented, wait_until
from SEBrainSegLib.commandline import main as command_line

pytestmark = pytest.mark.usefixtures("organs")
distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def client():
    """A client of a cluster of two worker processes of one thread each, whose dead are replaced."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs="CRITICAL"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


def busy_workers(client):
    """The addresses of the workers that are at a task."""
    return [address for address, tasks in client.processing().items() if tasks]


def known():
    return len(rows("out/sebrainseg.csv")) if os.path.exists("out/sebrainseg.csv") else 0


def test_an_interruption_cancels_what_is_queued(tmp_path, client, monkeypatch, capsys):
    """Workers hold every scan but the first until a file says go; before a test in which a worker is replaced."""
    for number in range(20):
        scan(tmp_path / "study" / f"{number:02}.nii")
    begun, ended, go = (tmp_path / name for name in ("begun", "ended", "go"))
    begun.mkdir(), ended.mkdir()

    def hold():
        from SEBrainSegLib.commandline import batch

        def held(scan, work, *others, segment_scan=batch.segment_scan):
            (begun / scan.path.stem).touch()
            while scan.path.name != "00.nii" and not go.exists():
                time.sleep(0.02)
            segment_scan(scan, work, *others)
            (ended / scan.path.stem).touch()

        batch.segment_scan = held

    client.run(hold)
    client.wait_for_workers(2)
    tell = command_line.print_line

    def interrupted(line, failure):
        tell(line, failure)
        if "[1/20]" in line:
            raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "print_line", interrupted)
    assert run("study", "-o", "out", "--dask", client.scheduler.address) == 130
    assert "the same command goes on" in capsys.readouterr().err
    go.touch()
    # Would wait for all that was queued before it.
    assert client.submit(sum, [1, 2], pure=False).result(timeout=DEADLOCK) == 3
    wait_until(lambda: set(os.listdir(begun)) == set(os.listdir(ended)))
    # Nothing else but what the workers were at, one each.
    assert len(os.listdir(begun)) <= 3 and segmented("out") == set(os.listdir(begun)) and known() == 1


@POSIX
def test_a_worker_that_dies_costs_no_scan(tmp_path, client):
    """One scan is a pipe, at which its worker waits to be killed; by the next try there is a scan in its place."""
    for name in "bcd":
        scan(tmp_path / "study" / f"{name}.nii.gz")
    latin = os.fsdecode(b"\xfc") if sys.platform != "darwin" else "d"  # is no UTF-8
    (tmp_path / "study" / "d.nii.gz").rename(tmp_path / "study" / f"{latin}.nii.gz")
    slow = pipe(tmp_path / "study" / "a.nii")
    client.wait_for_workers(2)
    processes, statuses = client.run(os.getpid), []
    arguments = (str(slow), "study", "-o", "out", "--dask", client.scheduler.address)
    command = threading.Thread(target=lambda: statuses.append(run(*arguments)))
    command.start()
    wait_until(lambda: known() == 3 or not command.is_alive())
    os.replace(scan(tmp_path / "whole.nii"), slow)
    (busy,) = busy_workers(client)
    psutil.Process(processes[busy]).kill()
    command.join(DEADLOCK)
    assert statuses == [0]
    assert segmented("out") == {"a", "b", "c", latin}
    assert not [name for name in os.listdir("out") if name.startswith(".")]
    assert {row["status"] for row in rows("out/sebrainseg.csv").values()} == {"segmented"}


def test_without_a_cluster_there_is_one_sentence(tmp_path, monkeypatch, capsys):
    scan(tmp_path / "a.nii.gz")
    monkeypatch.setattr("SEBrainSegLib.commandline.dask_cluster.TIMEOUT", 1)
    for address in ("tcp://127.0.0.1:9", "nonsense://"):
        assert run("a.nii.gz", "--dask", address) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and f"No Dask scheduler answers at {address}" in error
    assert run("a.nii.gz", "--dask", "tcp://127.0.0.1:9", "--jobs", "2") == 2
    assert "leave out --jobs" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert run("a.nii.gz", "--dask", "tcp://127.0.0.1:9") == 1
    assert "pip install distributed" in capsys.readouterr().err
