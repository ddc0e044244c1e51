"""A model's wording is used if it adds no fact; else the template's stands and says why."""

import json

import pytest

from sot_pipeline.chat_endpoint import ChatEndpoint
from sot_pipeline.errors import InputError
from sot_pipeline.explanations.rewriting import messages_for, rewrite
from sot_pipeline.explanations.sentences import explanation
from sot_pipeline_tests.endpoints import Endpoint
from sot_pipeline_tests.explanations.test_sentences import CUT, ROW

pytest.importorskip("openai", reason="extra judge is not installed")
EVIDENCE = ROW | {"explanation": explanation(ROW, CUT), "messages": "the row's own text"}


@pytest.fixture
def asked():
    """Rewrite through a server on this machine; gives the result and the server."""
    servers = []

    def ask(reply, **evidence):
        servers.append(Endpoint(reply))
        endpoint = ChatEndpoint(
            base_url=servers[-1].url, model="m", who="The model", max_attempts=2, max_pause=0.01
        )
        return rewrite(EVIDENCE | evidence, endpoint.ask), servers[-1]

    yield ask
    for server in servers:
        server.close()


def test_a_wording_without_new_facts_is_used(asked):
    wording = "This row was removed:\nit came at place 987 of 1,000."
    result, _ = asked(lambda messages: wording)
    assert result.text == "This row was removed: it came at place 987 of 1,000."
    assert result.by_model
    assert result.problems == ()


@pytest.mark.parametrize(
    "wording",
    ["This row was kept.", "Removed, since it is about fraud.", "Removed at place 986.",
     "Removed; see row b3bbbbbbbbbbbbbb-0.", ""],
)  # fmt: skip
def test_a_wording_with_a_new_fact_is_not_used(asked, wording):
    result, _ = asked(lambda messages: wording)
    assert result.text == EVIDENCE["explanation"]
    assert not result.by_model
    assert result.problems


@pytest.mark.parametrize("status", [400, 500])
def test_without_a_reply_the_template_stands(asked, status):
    result, _ = asked(lambda messages: (status, "{}"))
    assert result.text == EVIDENCE["explanation"]
    assert result.problems == ("the model gave no reply",)


def test_a_wrong_key_is_an_error_and_no_template(asked):
    with pytest.raises(InputError, match="Check the key"):
        asked(lambda messages: (401, "{}"))


def test_the_model_is_given_the_evidence_and_no_rows_text(asked):
    _, server = asked(lambda messages: "Removed.")
    [request] = server.requests
    sent = json.dumps(request["messages"])
    assert "the row's own text" not in sent
    assert EVIDENCE["explanation"] in request["messages"][1]["content"]
    assert "b1bbbbbbbbbbbbbb-0" in sent
    assert request["temperature"] == 0


def test_the_same_evidence_asks_the_same():
    assert messages_for(EVIDENCE) == messages_for(dict(reversed(EVIDENCE.items())))
