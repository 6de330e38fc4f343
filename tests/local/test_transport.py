import threading

import anyio
import httpx2
import openai
import pytest

from voxvec.errors import ConfigError, MissingExtraError
from voxvec.local.exchange import Reply
from voxvec.local.transport import AsyncLocalTransport, LocalTransport

seen = []


def respond(request):
    seen.append((request, threading.get_ident()))
    return Reply(418, {"x-kind": "teapot"}, request.body[::-1])


def sync():
    with httpx2.Client(transport=LocalTransport(respond)) as client:
        return client.post("http://x/v1/a%2Fb", content=b"abc", headers={"X-One": "1"})


def twin():
    async def go():
        async with httpx2.AsyncClient(transport=AsyncLocalTransport(respond)) as client:
            return await client.post("http://x/v1/a%2Fb", content=b"abc", headers={"X-One": "1"})

    return anyio.run(go)


def test_both_twins_carry_the_request_in_and_the_reply_out():
    for call in (sync, twin):
        seen.clear()
        reply = call()

        assert (reply.status_code, reply.content, reply.headers["x-kind"]) == (418, b"cba", "teapot")
        [(request, _)] = seen
        assert (request.method, request.path, request.body, request.headers["x-one"]) == (
            "POST",
            "/v1/a/b",
            b"abc",
            "1",
        )


@pytest.mark.parametrize("error", [ConfigError("nothing to answer with"), MissingExtraError("this", extra="local")])
def test_what_the_responder_raises_arrives_through_openai_as_it_is(error):
    def fail(_):
        raise error

    async def go():
        http = httpx2.AsyncClient(transport=AsyncLocalTransport(fail))
        async with openai.AsyncOpenAI(api_key="x", base_url="http://x/v1", http_client=http) as client:
            await client.models.list()

    http = httpx2.Client(transport=LocalTransport(fail))
    with (
        openai.OpenAI(api_key="x", base_url="http://x/v1", http_client=http) as client,
        pytest.raises(type(error)) as a,
    ):
        client.models.list()
    with pytest.raises(type(error)) as b:
        anyio.run(go)

    assert a.value is b.value is error


def test_the_async_twin_works_in_a_thread():
    seen.clear()
    twin()

    assert seen[0][1] != threading.get_ident()
