"""A model behind any OpenAI-compatible endpoint: a hosted one, or a server on this machine."""

import os
from typing import Any
from urllib.parse import urlsplit

from sot_pipeline.errors import InputError

Message = dict[str, str]


class ChatEndpoint:
    """Asks for one reply at a time, at temperature 0; may be shared by threads.

    Args:
        base_url: Of the endpoint, for example `http://127.0.0.1:8000/v1`.
        model: Its name there.
        who: What the endpoint is called in messages, such as "The judge".
        api_key_env: Name of the environment variable that holds the key. An endpoint on this
            machine needs none.
        other_key: How to name another variable; ends the message that a key is missing.
        again: What to do once an endpoint can be reached again; ends that message.
        without: What to do where the client is not installed; ends that message.
        timeout: Seconds for one request.
        max_attempts: Of one request; 429, 5xx, timeouts and lost connections are tried again
            after a growing pause.
        max_pause: Longest pause in seconds.

    Raises:
        InputError: no client is installed, the address is none, or there is no key.
    """

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        who: str,
        api_key_env: str = "OPENAI_API_KEY",
        other_key: str = "",
        again: str = "try again",
        without: str = "go on without it",
        timeout: float = 60.0,
        max_attempts: int = 6,
        max_pause: float = 30.0,
    ):
        self.base_url, self.model = base_url, model
        self._who, self._other_key, self._again, self._without = who, other_key, again, without
        self._api_key_env = api_key_env
        self._max_attempts, self._max_pause = max_attempts, max_pause
        openai, _ = self._clients()
        if urlsplit(base_url).scheme not in ("http", "https"):
            raise InputError(
                f'{who}\'s base_url is "{base_url}": expected an address such as '
                "http://127.0.0.1:8000/v1."
            )
        self._client = openai.OpenAI(
            base_url=base_url, api_key=self._key(), timeout=timeout, max_retries=0
        )

    def ask(self, messages: list[Message]) -> str | None:
        """The model's reply, None where every attempt failed or this text is refused.

        Raises:
            InputError: the key, the model or the address is wrong.
        """
        openai, tenacity = self._clients()
        passing = (openai.RateLimitError, openai.InternalServerError, openai.APIConnectionError)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(passing),  # a timeout is a connection error
            stop=tenacity.stop_after_attempt(self._max_attempts),
            wait=tenacity.wait_random_exponential(multiplier=1, max=self._max_pause),
            reraise=True,
        )
        create: Any = self._client.chat.completions.create
        try:
            response = retrying(create, model=self.model, messages=messages, temperature=0)
        except openai.APITimeoutError:
            return None
        except openai.APIConnectionError as error:
            raise InputError(
                f"{self._who} at {self.base_url} cannot be reached. Check the address and the "
                f"network, then {self._again}."
            ) from error
        except (openai.RateLimitError, openai.InternalServerError):
            return None
        except openai.APIStatusError as error:
            if error.status_code in (400, 413, 422):  # this text is refused: a filter, its length
                return None
            raise self._refused(error.status_code) from None  # the reply may spell out the key
        except openai.APIError:  # a reply that is no chat completion
            return None
        return response.choices[0].message.content if response.choices else None

    def _key(self) -> str:
        key = os.environ.get(self._api_key_env)
        if key:
            return key
        if urlsplit(self.base_url).hostname in ("127.0.0.1", "::1", "localhost"):
            return "none"
        raise InputError(
            f"{self._who} at {self.base_url} needs a key: put it into the environment variable "
            f"{self._api_key_env}{self._other_key}."
        )

    def _refused(self, status: int) -> InputError:
        remedy = {
            401: f"Check the key in {self._api_key_env}.",
            403: f"The key in {self._api_key_env} may not use this model.",
            404: f'Check the address, and that it serves a model called "{self.model}".',
        }.get(status, "See the endpoint's documentation.")
        return InputError(
            f"{self._who} at {self.base_url} refused the request (status {status}). {remedy}"
        )

    def _clients(self):
        try:
            import openai
            import tenacity
        except ImportError as error:
            raise InputError(
                f"{self._who} needs the openai client. Install it with "
                f'`pip install "sot-pipeline[judge]"`, or {self._without}.'
            ) from error
        return openai, tenacity
