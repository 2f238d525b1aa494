"""Lines that `pfsb client` does not send."""

from __future__ import annotations


def refusal_of_line(line: str) -> str:
    """The reason why `pfsb client` does not send this line, as a text for people; empty if the line may be sent."""
    if line.startswith("#"):
        return "this client numbers its commands by itself; write the command without #number"
    if line.split(None, 1)[0].upper() == "HELLO":
        return "this client says HELLO by itself; start it with --client-id to choose who it is"
    if line.split(None, 1)[0].upper() == "AUTH":
        return "this client says AUTH by itself; start it with --token-file, or with PFSB_TOKEN in its environment"
    if line.split(None, 1)[0].upper() == "MEMBERS":
        return "this client says MEMBERS by itself; SERVERS shows the servers of the cluster"
    try:
        line.encode()
    except UnicodeEncodeError:
        return "this is not UTF-8; set your terminal, or your shell's LANG, to UTF-8"
    return "one line at a time" if "\n" in line else ""
