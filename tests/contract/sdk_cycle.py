"""The whole cycle through the Python SDK, whichever version runs this script: `sdk_cycle.py BASE_URL`.

Runs in an environment of its own, so it knows nothing of Lowtide. It prints each step as one JSON line and waits for
a line on standard input where the batch has to be ended from outside.
"""

import json
import sys
from typing import Any

import anthropic


def say(step: str, **what: Any) -> None:
    print(json.dumps({"step": step, **what}), flush=True)


def refusal(call: Any) -> dict[str, Any]:
    try:
        call()
    except anthropic.APIStatusError as error:
        body: Any = error.body
        return {
            "kind": type(error).__name__,
            "status": error.status_code,
            "type": body["error"]["type"],
            "message": body["error"]["message"],
            "ids_agree": error.request_id == body["request_id"],
        }
    return {}


def cycle(client: anthropic.Anthropic, batches: Any) -> None:
    params = {"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}]}
    wanted = [{"custom_id": f"r{number}", "params": params} for number in range(3)]
    batch = batches.create(requests=wanted)
    say("created", id=batch.id, status=batch.processing_status, count=batch.request_counts.processing)
    say("early", text=str(refused_locally(lambda: batches.results(batch.id))))
    say("undeletable", **refusal(lambda: batches.delete(batch.id)))
    sys.stdin.readline()
    ended = batches.retrieve(batch.id)
    say("ended", status=ended.processing_status, url=ended.results_url, ended=ended.ended_at is not None)
    kinds = {line.custom_id: line.result.type for line in batches.results(batch.id)}
    texts = [
        line.result.message.content[0].text for line in batches.results(batch.id) if line.result.type == "succeeded"
    ]
    say("results", kinds=kinds, texts=texts)
    canceled = batches.cancel(batches.create(requests=wanted).id)
    say("canceled", status=canceled.processing_status, began=canceled.cancel_initiated_at is not None)
    say("listed", all=[one.id for one in batches.list(limit=1)], known=[batch.id, canceled.id])
    say("deleted", type=batches.delete(batch.id).type)
    say("unknown", **refusal(lambda: batches.retrieve(batch.id)))
    say("refused", **refusal(lambda: batches.create(requests=[])))
    say("request_id", value=batches.retrieve(canceled.id)._request_id)


def refused_locally(call: Any) -> Exception | None:
    try:
        call()
    except anthropic.AnthropicError as error:
        return error
    return None


def main() -> None:
    client = anthropic.Anthropic(base_url=sys.argv[1], api_key="test-key")
    say("version", value=anthropic.__version__)
    cycle(client, client.messages.batches)
    if sys.argv[2:] == ["beta"]:
        cycle(client, client.beta.messages.batches)


if __name__ == "__main__":
    main()
