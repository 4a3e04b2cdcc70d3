"""The command, up to where the page is served."""

from __future__ import annotations

import socket
import sys

import pytest

from diffprobe.app.__main__ import main


def test_without_gradio_one_line_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "diffprobe.app.page", raising=False)
    assert main([]) == 1
    assert capsys.readouterr().err == "the page needs gradio: pip install -e '.[app]'\n"


def test_a_port_that_is_taken_is_refused_before_anything_is_loaded(capsys):
    pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--port", str(port)]) == 1
    said = capsys.readouterr()
    assert f"--port {port} cannot be used" in said.err
    assert said.out == ""


def test_a_folder_that_is_none_is_told_in_a_line(capsys):
    pytest.importorskip("gradio")
    assert main(["--probes", "no/such/folder", "--port", "0"]) == 1
    assert capsys.readouterr().err.startswith("no/such/folder: there is no such folder; ")
