"""Uses the example engine through the official `openai` package, and checks the journeys that its requests left.

    client.py ENGINE JOURNEY

Both are programs: a server of ENGINE is started for the tests, JOURNEY checks its traces when it has ended.
"""

import os
import signal
import subprocess
import sys
import tempfile
import traceback

import openai

KEY = "sk-test"
STORY = "Once upon a time"
CHAT = [{"role": "system", "content": "You are a kind storyteller."}, {"role": "user", "content": "Tell me a story."}]
# Tokens that the model can see; a context that is too long is longer than this.
CONTEXT = 512


class Server:
    """A running engine whose journeys go to a file."""

    def __init__(self, program, folder):
        self.journeys = os.path.join(folder, "journeys.jsonl")
        env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        command = [program, "serve", "--port", "0", "--api-key", KEY, "--journeys", self.journeys]
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line.startswith("listening on "), line
        self.url = line.removeprefix("listening on ").strip() + "/v1"

    def client(self, **options):
        options = {"api_key": KEY, "max_retries": 0, "timeout": 60} | options
        return openai.OpenAI(base_url=self.url, **options)

    def stop(self):
        """Ends it in order; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=30)
        return self.process.returncode

    def kill(self):
        self.process.kill()
        self.process.wait()


def expect(error, call, **fields):
    """Calls what must raise `error`, and compares the fields of its body."""
    try:
        call()
    except error as raised:
        body = raised.body
        assert body["message"], body
        assert {name: body.get(name) for name in fields} == fields, body
        return raised
    raise AssertionError(f"{error.__name__} was expected")


def models(server):
    client = server.client()
    (model,) = client.models.list().data
    assert (model.object, client.models.retrieve(model.id).id) == ("model", model.id), model
    expect(openai.NotFoundError, lambda: client.models.retrieve("no-such-model"), code="model_not_found")


def completion(server):
    client = server.client()
    whole = client.completions.create(model="demo", prompt=STORY, max_tokens=8, temperature=0)
    (choice,) = whole.choices
    assert (whole.object, choice.index, choice.finish_reason) == ("text_completion", 0, "length"), whole
    assert choice.text and whole.usage.completion_tokens == 8, whole
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + 8, whole


def completion_in_a_stream(server):
    client = server.client()
    asked = {"model": "demo", "prompt": STORY, "max_tokens": 8, "temperature": 0}
    whole = client.completions.create(**asked)
    chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    *texts, last = chunks
    assert "".join(chunk.choices[0].text for chunk in texts) == whole.choices[0].text, chunks
    assert [chunk.choices[0].finish_reason for chunk in texts][-1] == "length", chunks
    assert (last.choices, last.usage) == ([], whole.usage), last
    assert {chunk.id for chunk in chunks} == {last.id}, chunks
    plain = list(client.completions.create(**asked, stream=True))
    assert len(plain) == len(texts) and all(chunk.usage is None for chunk in plain), plain


def several_prompts_and_sequences(server):
    client = server.client()
    asked = {"model": "demo", "prompt": ["One day", "The fox"], "n": 2, "max_tokens": 6, "seed": 1}
    whole = client.completions.create(**asked)
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3], whole
    assert whole.usage.completion_tokens <= 24, whole
    texts = [""] * 4
    for chunk in client.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == [choice.text for choice in whole.choices], "the same seed draws the same tokens"


def chat(server):
    client = server.client()
    asked = {"model": "demo", "messages": CHAT, "max_completion_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    (choice,) = whole.choices
    assert (whole.object, choice.message.role) == ("chat.completion", "assistant"), whole
    assert choice.message.content and whole.id.startswith("chatcmpl-"), whole
    with client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}) as stream:
        chunks = list(stream)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == choice.message.content, chunks
    assert chunks[0].choices[0].delta.role == "assistant", chunks[0]
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage), chunks[-1]


def chat_with_n(server):
    client = server.client()
    asked = {"model": "demo", "messages": CHAT, "n": 3, "max_tokens": 5, "seed": 7}
    whole = client.chat.completions.create(**asked)
    assert [choice.index for choice in whole.choices] == [0, 1, 2], whole
    texts, roles = [""] * 3, []
    for chunk in client.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            roles += [choice.index] if choice.delta.role else []
    assert texts == [choice.message.content for choice in whole.choices], texts
    assert sorted(roles) == [0, 1, 2], "each sequence begins with its role, once"


def a_stop_text(server):
    client = server.client()
    asked = {"model": "demo", "prompt": STORY, "max_tokens": 60, "temperature": 0}
    text = client.completions.create(**asked).choices[0].text
    (choice,) = client.completions.create(**asked, stop=[". "]).choices
    assert (choice.text, choice.finish_reason) == (text.split(". ")[0], "stop"), choice


def more_than_openai_has(server):
    """vLLM's arguments, which the client sends as they are."""
    client = server.client()
    more = {"top_k": 1, "ignore_eos": True, "priority": -1}
    (choice,) = client.completions.create(model="demo", prompt=STORY, max_tokens=300, extra_body=more).choices
    assert choice.finish_reason == "length", "the end token is not the end with ignore_eos"


def a_request_id(server):
    raw = server.client().completions.with_raw_response.create(
        model="demo", prompt=STORY, max_tokens=1, extra_headers={"X-Request-Id": "of-the-client"}
    )
    assert raw.headers["x-request-id"] == "of-the-client", raw.headers
    assert raw.parse().id == "cmpl-of-the-client", raw.parse()


def a_stream_left_early(server):
    client = server.client()
    more = {"ignore_eos": True}
    with client.completions.create(model="demo", prompt=STORY, max_tokens=400, stream=True, extra_body=more) as stream:
        next(iter(stream))
    assert client.completions.create(model="demo", prompt=STORY, max_tokens=1).choices, "the server goes on"


def refusals(server):
    client = server.client()
    bad = openai.BadRequestError
    complete = client.completions.create
    expect(bad, lambda: complete(model="demo", prompt="x", temperature=3), param="temperature", code=None)
    expect(bad, lambda: complete(model="demo", prompt="x", n=0), param="n", type="invalid_request_error")
    expect(bad, lambda: complete(model="demo", prompt=[CONTEXT * 2]), param="prompt")
    too_long = {"param": "max_tokens", "code": "context_length_exceeded"}
    expect(bad, lambda: complete(model="demo", prompt="x", max_tokens=CONTEXT), **too_long)
    expect(bad, lambda: client.chat.completions.create(model="demo", messages=[]), param="messages")
    expect(openai.NotFoundError, lambda: complete(model="gpt", prompt="x"), param="model", code="model_not_found")
    expect(openai.NotFoundError, lambda: client.embeddings.create(model="demo", input="x"))
    too_large = expect(openai.APIStatusError, lambda: complete(model="demo", prompt="x" * (2 << 20)))
    assert too_large.status_code == 413, too_large


def the_api_key(server):
    for key in ["sk-wrong", "sk-tes", f"{KEY}x"]:
        client = server.client(api_key=key)
        expect(openai.AuthenticationError, client.models.list, code="invalid_api_key")
        expect(openai.AuthenticationError, lambda: client.completions.create(model="demo", prompt="x"))


TESTS = [
    models,
    completion,
    completion_in_a_stream,
    several_prompts_and_sequences,
    chat,
    chat_with_n,
    a_stop_text,
    more_than_openai_has,
    a_request_id,
    a_stream_left_early,
    refusals,
    the_api_key,
]


def the_journeys_are_whole(server, journey):
    assert server.stop() == 0, "the server did not end in order"
    subprocess.run([journey, "check", server.journeys], check=True)


def main():
    engine, journey = sys.argv[1:]
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        server = Server(engine, folder)
        try:
            calls = [(test, (server,)) for test in TESTS] + [(the_journeys_are_whole, (server, journey))]
            for test, arguments in calls:
                try:
                    test(*arguments)
                    print("ok    ", test.__name__)
                except Exception:
                    failed += 1
                    print("FAILED", test.__name__)
                    traceback.print_exc()
        finally:
            server.kill()
    print(f"openai {openai.__version__}")
    print(f"{len(calls) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


main()
