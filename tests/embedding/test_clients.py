"""Whose client it is, whom it asks, and how it ends; both twins, some over a real socket."""

import gc
import signal
import subprocess
import sys
import textwrap
import weakref

import anyio
import openai
import pytest

import voxvec as vv
from voxvec import ConfigError, MemoryCache, SqliteCache
from voxvec.testing import FakeOpenAI

SMALL = vv.models.find("text-embedding-3-small", dims=8).replace(max_items=2)


def openai_client(twin, kind="OpenAI", **settings):
    cls = getattr(openai, kind if twin.kind == "sync" else f"Async{kind}")
    return cls(**{"api_key": "sk-mine", **settings})


class TestAUsersClient:
    def test_its_headers_and_its_server_are_kept(self, twin, server):
        client = openai_client(
            twin, base_url="https://gateway.example/v9/", default_headers={"x-team": "birds"}, organization="org"
        )

        twin.embedder(client=client, dimensions=8).embed(["ant"])

        assert server.urls == ["https://gateway.example/v9/embeddings"]
        assert server.headers[0]["x-team"] == "birds"
        assert server.headers[0]["openai-organization"] == "org"
        assert server.headers[0]["authorization"] == "Bearer sk-mine"

    def test_its_retries_stay_its_own_and_are_not_added_to_ours(self, twin, server):
        client = openai_client(twin, max_retries=7)
        server.script.extend([OSError("gone")] * 99)

        with pytest.raises(vv.ServiceError):
            twin.embedder(client=client, dimensions=8, retry=vv.Retry(attempts=1)).embed(["ant"])

        assert len(server.asked) == 1
        assert client.max_retries == 7

    def test_azure_routes_to_the_deployment(self, twin, server):
        client = openai_client(
            twin, "AzureOpenAI", azure_endpoint="https://birds.openai.azure.com", api_version="2024-10-21"
        )
        model = vv.models.find("text-embedding-3-small").replace(name="tiny", native_dims=8, dims=8)

        assert twin.embedder(model, client=client).embed(["ant"]).shape == (1, 8)

        (url,) = server.urls
        assert url == "https://birds.openai.azure.com/openai/deployments/tiny/embeddings?api-version=2024-10-21"
        assert server.headers[0]["api-key"] == "sk-mine"

    @pytest.mark.parametrize("other", [{"api_key": "sk-x"}, {"base_url": "https://x.example/v1"}])
    def test_it_excludes_settings_for_a_client_of_ours(self, twin, other):
        with pytest.raises(ConfigError, match="either client="):
            twin.embedder(client=openai_client(twin), **other)

    def test_the_wrong_kind_is_refused_with_the_right_one(self, twin):
        wrong = openai.AsyncOpenAI(api_key="sk-x") if twin.kind == "sync" else openai.OpenAI(api_key="sk-x")

        with pytest.raises(ConfigError, match=r"twin") as caught:
            twin.embedder(client=wrong)

        assert ("openai.OpenAI" if twin.kind == "sync" else "openai.AsyncOpenAI") in str(caught.value)

    def test_it_stays_open(self, twin):
        fake = FakeOpenAI()
        client = twin.client(fake)

        embedder = twin.embedder(client=client, dimensions=8)
        embedder.embed(["ant"])
        embedder.close()

        assert not client.is_closed()


class TestWithoutAClient:
    def test_the_environment_names_key_and_server(self, twin, server, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")
        monkeypatch.setenv("OPENAI_BASE_URL", "https://elsewhere.example/v1")

        twin.embedder(api_key=None, dimensions=8).embed(["ant"])

        assert server.urls == ["https://elsewhere.example/v1/embeddings"]
        assert server.headers[0]["authorization"] == "Bearer sk-from-the-environment"

    def test_without_a_key_both_ways_out_are_named(self, twin, monkeypatch):
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)

        with pytest.raises(ConfigError, match=r"OPENAI_API_KEY.*voxvec\.local\.client\(\)") as caught:
            twin.embedder(api_key=None).embed(["ant"])

        assert caught.value.pending == 1


class TestTheEnd:
    def test_after_closing_nothing_more_is_sent(self, twin, server):
        embedder = twin.embedder(dimensions=8)
        embedder.embed(["ant"])
        embedder.close()

        with pytest.raises(ConfigError, match="closed"):
            embedder.embed(["bee"])

        assert len(server.asked) == 1

    def test_closing_twice_or_unused_is_fine(self, twin):
        embedder = twin.embedder()

        embedder.close()
        embedder.close()

    def test_a_with_block_closes_our_own_connections(self):
        fake = FakeOpenAI()

        async def main(base_url):
            async with vv.AsyncEmbedder(SMALL, api_key="sk-x", base_url=base_url) as embedder:
                await embedder.embed(["ant"])
                return embedder._client.door()

        with fake.serve() as base_url:
            with vv.Embedder(SMALL, api_key="sk-x", base_url=base_url) as embedder:
                embedder.embed(["ant"])
                door = embedder._client.door()
            for closed in (door, anyio.run(main, base_url)):
                assert closed._client.is_closed()

    def test_nothing_stays_alive_in_an_event_loop_that_goes_on(self, vectors_of):
        fake, watched = FakeOpenAI(), []

        async def use(base_url):
            async with vv.AsyncEmbedder(SMALL, api_key="sk-x", base_url=base_url) as embedder:
                vectors = await embedder.embed(["ant"])
                client = embedder._client
                watched.extend(map(weakref.ref, [embedder, client, client.lane(), client.door()]))
                watched.append(weakref.ref(client.door()._client))
            return vectors.tolist()

        async def main(base_url):
            vectors = await use(base_url)
            gc.collect()
            return vectors, [thing() for thing in watched]

        with fake.serve() as base_url:
            vectors, alive = anyio.run(main, base_url)

        assert vectors == vectors_of(["ant"], 8)
        assert alive == [None] * 5

    def test_a_cache_that_fails_loses_no_answer(self, twin, server, vectors_of):
        class Sick:
            def get_many(self, keys):
                raise OSError("gone")

            set_many = discard = get_many

        embedder = twin.embedder(SMALL, cache=Sick())
        with pytest.warns(vv.VoxvecWarning, match="the cache Sick") as said:
            vectors = embedder.embed(["ant", "bee"])

        assert vectors.tolist() == vectors_of(["ant", "bee"], 8)
        assert [warning.category for warning in said] == [vv.VoxvecWarning]

    def test_it_is_not_pickled(self, twin):
        import pickle  # noqa: PLC0415 -- nothing else here needs it

        embedder = twin.embedder()
        with pytest.raises(TypeError, match="one in each process"):
            pickle.dumps(embedder if twin.kind == "sync" else embedder._client)


def test_its_repr_names_the_model_and_the_dims(twin):
    assert repr(twin.embedder(dimensions=8)).endswith("Embedder('text-embedding-3-small', dimensions=8)")


def test_one_client_serves_several_event_loops(vectors_of):
    fake = FakeOpenAI()
    cache = MemoryCache()
    with fake.serve() as base_url:
        embedder = vv.AsyncEmbedder(SMALL, api_key="sk-x", base_url=base_url, cache=cache)

        async def main(text):
            vectors = await embedder.embed([text])
            door = embedder._client.door()
            await door.close()
            return vectors.tolist()

        results = [anyio.run(main, text) for text in ("ant", "bee", "ant")]

    assert [row for rows in results for row in rows] == vectors_of(["ant", "bee", "ant"], 8)
    assert fake.asked == 2


class TestOverASocket:
    @pytest.fixture
    def fake(self, monkeypatch):
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        return FakeOpenAI()

    def test_many_requests_side_by_side(self, twin, fake, vectors_of):
        texts = [f"text {n}" for n in range(101)]

        with fake.serve() as base_url:
            embedder = twin.embedder(SMALL, base_url=base_url, workers=4)
            vectors = embedder.embed(texts)
            embedder.close()

        assert vectors.tolist() == vectors_of(texts, 8)
        assert (fake.asked, fake.paid_again) == (51, 0)
        assert fake.peak <= 4

    def test_faults_are_ridden_out(self, twin, fake, clock, vectors_of):
        fake.fail_next(429, retry_after=30)
        fake.fail_next(500)

        with fake.serve() as base_url:
            embedder = twin.embedder(SMALL, base_url=base_url)
            assert embedder.embed(["ant"]).tolist() == vectors_of(["ant"], 8)
            embedder.close()

        assert fake.asked == 3

    def test_a_server_that_is_not_there_was_sent_nothing(self, twin, fake, clock):
        with fake.serve() as base_url:
            pass  # now nobody listens there

        embedder = twin.embedder(SMALL, base_url=base_url)
        with pytest.raises(vv.NetworkError) as caught:
            embedder.embed(["ant"])
        embedder.close()

        assert (caught.value.kind, caught.value.billed) == ("never_sent", "no")


CHILD = """
    import sys
    import voxvec as vv

    model = vv.models.find("text-embedding-3-small", dims=8).replace(max_items=2)
    with vv.Embedder(model, api_key="sk-x", base_url=sys.argv[1], cache=sys.argv[2], workers=2) as embedder:
        embedder.embed([f"text {n}" for n in range(40)])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_after_being_killed_in_the_middle_only_what_is_missing_is_bought(tmp_path, monkeypatch, vectors_of):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    texts = [f"text {n}" for n in range(40)]
    script = tmp_path / "child.py"
    script.write_text(textwrap.dedent(CHILD), "utf-8")
    cache = tmp_path / "vectors.db"
    children = []

    def kill(_, reply):
        if fake.asked >= 11 and children:  # not ==: the other worker may have asked since
            children[0].kill()
        return reply

    fake = FakeOpenAI(mutate=kill)
    with fake.serve() as base_url:
        with subprocess.Popen([sys.executable, str(script), base_url, str(cache)]) as child:  # noqa: S603 -- ours
            children.append(child)
            assert child.wait(60) == -signal.SIGKILL
        children.clear()
        billed = fake.billed
        with vv.Embedder(SMALL, api_key="sk-x", base_url=base_url, cache=SqliteCache(cache)) as embedder:
            vectors = embedder.embed(texts)

    in_flight = 2 * 2  # two workers, two texts each
    assert vectors.tolist() == vectors_of(texts, 8)
    assert fake.paid_again <= in_flight
    assert billed - in_flight <= vectors.cached < 40
