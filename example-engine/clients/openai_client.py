"""Uses a running example engine through the official `openai` package: openai_client.py URL [API_KEY]."""

import sys

import openai

url, key = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "none"
client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)

(model,) = client.models.list().data
assert client.models.retrieve(model.id).id == model.id

whole = client.completions.create(model=model.id, prompt="Once upon a time", max_tokens=8, temperature=0)
assert whole.object == "text_completion" and whole.choices[0].finish_reason in ("stop", "length"), whole
assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens, whole

chunks = list(
    client.completions.create(model=model.id, prompt="Once upon a time", max_tokens=8, temperature=0, stream=True)
)
assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text, chunks

several = client.completions.create(model=model.id, prompt=["a", "b"], n=2, max_tokens=2, seed=1)
assert [choice.index for choice in several.choices] == [0, 1, 2, 3], several

messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Tell me a story."}]
chat = client.chat.completions.create(model=model.id, messages=messages, max_tokens=8, temperature=0)
assert chat.choices[0].message.role == "assistant" and chat.choices[0].message.content, chat

with client.chat.completions.create(
    model=model.id,
    messages=messages,
    max_completion_tokens=8,
    temperature=0,
    stream=True,
    stream_options={"include_usage": True},
) as stream:
    chunks = list(stream)
text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
assert text == chat.choices[0].message.content, chunks
assert chunks[-1].usage == chat.usage and not chunks[-1].choices, chunks[-1]

raw = client.chat.completions.with_raw_response.create(model=model.id, messages=messages, max_tokens=1)
assert raw.parse().id.startswith("chatcmpl-"), raw

for refused, call in {
    openai.BadRequestError: lambda: client.completions.create(model=model.id, prompt="x", temperature=3),
    openai.NotFoundError: lambda: client.completions.create(model="no-such-model", prompt="x"),
}.items():
    try:
        call()
    except refused as error:
        assert error.body["message"], error
    else:
        raise AssertionError(f"{refused.__name__} was expected")

print(f"openai {openai.__version__}: models, completions, chat, streams and errors")
