"""Errors of the Hugging Face hub and its client, as one line for the user."""

import re

_IDS = re.compile(r"\((?:Request|Amzn Trace|Amz CF) ID: [^)]*\)")


def message_of(error: Exception) -> str:
    """An error of the hub or its client in one line, without the token; what helps is seldom in its first line."""
    from huggingface_hub import get_token

    text, token = _IDS.sub("", str(error)), get_token()
    lines = [line.strip(" .") for line in (text.replace(token, "***") if token else text).splitlines()]
    return "; ".join(line for line in lines if line) or type(error).__name__
