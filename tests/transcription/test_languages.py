import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxvec.errors import ConfigError
from voxvec.models import TranscriptionModel
from voxvec.transcription import languages

WHISPER_CODES = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi ml "
    "cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd gu am "
    "yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue"
)
GPT_TRANSCRIBE_CODES = (
    "af ar hy az be bn bs bg yue ca zh hr cs da nl en et fi fr gl ka de el gu he hi hu is id it ja kn kk ko lv lt mk "
    "ms ml mi mr ne no fa pl pt ro ru sr sk sl es sw sv tl ta te th tr uk ur vi cy"
)
WHISPER = WHISPER_CODES.split()
GPT_TRANSCRIBE = GPT_TRANSCRIBE_CODES.split()
whisper = TranscriptionModel(name="whisper-1", languages=tuple(WHISPER))
gpt = TranscriptionModel(name="gpt-transcribe", languages=tuple(GPT_TRANSCRIBE))
unlisted = TranscriptionModel(name="someone's")


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("korean", "ko"),
        ("Korean", "ko"),
        ("  KOREAN\n", "ko"),
        ("ko", "ko"),
        ("KOR", "ko"),
        ("ko-KR", "ko"),
        ("zh_TW", "zh"),
        ("zh-Hant-HK", "zh"),
        ("pt-BR", "pt"),
        ("es-419", "es"),
        ("mandarin", "zh"),
        ("Mandarin  Chinese", "zh"),
        ("burmese", "my"),
        ("castilian", "es"),
        ("Haitian Creole", "ht"),
        ("haitian creole", "ht"),
        ("valencian", "ca"),
        ("ger", "de"),
        ("deu", "de"),
        ("jw", "jv"),
        ("jv", "jv"),
        ("nb", "no"),
        ("nb-NO", "no"),
        ("Norwegian Bokmål", "no"),
        ("nn", "nn"),
        ("yue", "yue"),
        ("yue-Hant-HK", "yue"),
        ("cantonese", "yue"),
        ("fil", "tl"),
        ("iw", "he"),
        ("Māori", "mi"),
        ("haw", "haw"),
    ],
)
def test_every_usual_way_to_write_a_language_gives_its_canonical_code(written, code):
    assert languages.normalize(written) == code


def test_all_languages_of_whisper_and_of_gpt_transcribe_are_known():
    assert len(WHISPER) == 100
    assert len(GPT_TRANSCRIBE) == 63
    assert all(languages.for_model(code, whisper) == code for code in WHISPER)
    assert all(languages.for_model(code, gpt) == code for code in GPT_TRANSCRIBE)
    assert all(languages.lookup(code) for code in WHISPER + GPT_TRANSCRIBE)


@pytest.mark.parametrize("code", WHISPER)
def test_the_name_of_a_language_leads_back_to_it(code):
    canonical = languages.normalize(code)

    assert languages.normalize(languages.name(code)) == canonical
    assert languages.normalize(canonical) == canonical


def test_no_code_or_name_of_a_language_is_taken_by_another():
    owners = {}
    for row in languages._TABLE.strip().split("\n"):
        code, title, codes, names = row.split("|")
        for written in [code, title, *codes.split(), *filter(None, names.split(","))]:
            assert owners.setdefault(languages._fold(written), code) == code
            assert languages.lookup(written) == code


def test_a_misspelt_language_is_refused_naming_what_is_written_alike():
    with pytest.raises(ConfigError, match=r"'koreann' is known; did you mean Korean \(ko\)\?; nothing was sent"):
        languages.normalize("koreann")


@pytest.mark.parametrize("written", ["", "klingonese??", "한국말", "x", "-", "no-such-language", "\ud800"])
def test_what_is_no_language_is_refused_with_an_example(written):
    with pytest.raises(ConfigError, match="nothing was sent"):
        languages.normalize(written)


def test_the_name_of_an_unknown_code_is_refused():
    with pytest.raises(ConfigError):
        languages.name("qq")


@pytest.mark.parametrize("written", [None, "auto", "AUTO", " Auto "])
def test_auto_and_none_leave_the_language_to_the_server(written):
    assert languages.for_model(written, gpt) is None


@pytest.mark.parametrize(
    ("written", "model", "sent"),
    [
        ("jv", whisper, "jw"),
        ("Javanese", whisper, "jw"),
        ("nynorsk", whisper, "nn"),
        ("nynorsk", gpt, "no"),
        ("nb", gpt, "no"),
        ("no", TranscriptionModel(name="m", languages=("nb",)), "nb"),
        ("filipino", TranscriptionModel(name="m", languages=("fil",)), "fil"),
        ("ko-KR", TranscriptionModel(name="m", languages=("ko-KR", "en-US")), "ko-KR"),
        ("tlh", TranscriptionModel(name="m", languages=("tlh",)), "tlh"),
        ("Welsh", unlisted, "cy"),
    ],
)
def test_the_code_sent_is_one_the_model_lists(written, model, sent):
    assert languages.for_model(written, model) == sent


def test_a_language_the_model_does_not_list_is_refused_naming_those_it_does():
    with pytest.raises(ConfigError, match=r"gpt-transcribe does not take Yoruba \(yo\).*nothing was sent.*af, ar,.*zh"):
        languages.for_model("yoruba", gpt)


@given(st.text())
def test_any_text_gives_a_known_code_or_none(written):
    code = languages.lookup(written)

    assert code is None or languages.name(code)
