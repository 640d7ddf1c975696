"""Text from outside on its way to a terminal or a log."""


def printable(text: str) -> str:
    """`text` with what would steer a terminal, or begin a new line, as ``?``.

    Names of files, streams and units, and what other programs say, may hold anything:
    escape sequences that rename the window, forged lines in a log.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "?" for char in text)
