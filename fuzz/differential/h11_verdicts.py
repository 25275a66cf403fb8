"""Writes what h11 makes of each request of the corpus, one line each, to verdicts.txt beside this file.

h11 is an HTTP/1.1 parser that shares no code with ours: Python, by regular expressions from the RFC's grammar.
A test of `relay` compares our reading with these lines, so that the tests need neither Python nor h11:

    pip install --target /tmp/h11 --require-hashes -r fuzz/differential/requirements.txt
    PYTHONPATH=/tmp/h11 python3 fuzz/differential/h11_verdicts.py
"""

from pathlib import Path

import h11

HERE = Path(__file__).parent


def verdict(data: bytes) -> str:
    connection = h11.Connection(h11.SERVER)
    try:
        connection.receive_data(data)
        request = connection.next_event()
        if request is h11.NEED_DATA:
            return "partial"
        body = b""
        while True:
            event = connection.next_event()
            if isinstance(event, h11.EndOfMessage):
                return f"{request.method.decode()} {len(body)} {body.hex()}".rstrip()
            if event is h11.NEED_DATA:
                return "partial"
            body += bytes(event.data)
    except h11.RemoteProtocolError:
        return "refused"


lines = [f"{path.name}\t{verdict(path.read_bytes())}\n" for path in sorted((HERE.parent / "corpus/request").iterdir())]
(HERE / "verdicts.txt").write_text("".join(lines))
