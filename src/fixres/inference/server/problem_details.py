"""Errors as clients see them: a status, a code for programs, a sentence for people."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class Problem(Exception):  # noqa: N818 - an answer, not a failure of the server
    """An answer other than 200."""

    def __init__(self, status: int, code: str, message: str, retry_seconds: int | None = None) -> None:
        self.status, self.code, self.message = status, code, message
        self.retry_seconds = retry_seconds
        super().__init__(message)

    def body(self) -> dict[str, Any]:
        """Return the JSON of the answer."""
        return {"error": {"code": self.code, "message": self.message}}

    def headers(self) -> dict[str, str]:
        """Return the headers that belong to it."""
        found = {"Retry-After": str(self.retry_seconds)} if self.retry_seconds is not None else {}
        return found | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str
    """For programs: bad_parameter, bad_picture, busy, ..."""
    message: str
    """For people."""


class ErrorAnswer(BaseModel):
    """The body of every answer that is not 2xx."""

    error: ErrorDetail


MEANINGS = {
    400: "The request cannot be read, or the file is empty.",
    401: "The server wants a token: Authorization: Bearer TOKEN.",
    404: "There is nothing at this address.",
    405: "This address does not take this method.",
    408: "The request did not arrive in time.",
    413: "Too many bytes, pixels or files.",
    415: "Not a picture, or a content type that holds none.",
    421: "The server does not answer to this host name.",
    422: "A parameter is out of range, or the picture is damaged.",
    500: "A bug; the server's log has more.",
    501: "These answers cannot be explained: an exported file, or captum is missing.",
    503: "The queue is full, or the server is stopping: try again after Retry-After seconds.",
}
"""Every status other than 200."""


def busy(message: str = "the queue is full") -> Problem:
    """Return the answer of a server that has too much to do."""
    return Problem(503, "busy", f"{message}; try again in a second", retry_seconds=1)
