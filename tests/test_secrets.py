"""Secrets are in none of the files that a run leaves, and in no message."""

import logging
import sys
from contextlib import suppress

import pytest

import hydralight
from hydralight import cli, trials
from hydralight.config.typed import Typed
from hydralight.errors import UserError
from hydralight.runs import secrets
from hydralight.runs.logs import hide_secrets
from hydralight.runs.secrets import REDACTED, redact, remember
from hydralight.sweeps.space import split

KEYS = (
    "hf_" + "a1" * 17,
    "api_org_" + "aB" * 17,
    "sk-proj-" + "aB3" * 20,
    "sk-ant-api03-" + "xY" * 20,
    "AKIA" + "IOSFODNN7EXAMPLE",
    "glpat-" + "a1b2" * 5,
    "ghp_" + "a1" * 18,
    "github_pat_" + "A1b" * 10,
    "xoxb-" + "1234567890-abcdEF",
    "wandb_v1_" + "aB3" * 10,
    "SG." + "a" * 22 + "." + "b" * 43,
    "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "npm_" + "a1" * 18,
    "gsk_" + "aB3" * 16,
    "xai-" + "aB3" * 20,
    "r8_" + "aB3" * 12,
    "dop_v1_" + "0a" * 32,
    "hvs." + "aB3" * 16,
    "shpat_" + "0a" * 16,
    "lin_api_" + "aB3" * 13,
    "GOCSPX-" + "aB3" * 9,
    "ya29." + "aB3" * 16,
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
)


@pytest.mark.parametrize("key", KEYS)
def test_forms_of_keys(key):
    for place in (
        key,
        f"see {key}, there",
        f"tags=[{key}]",
        {"a": [{"b": key}]},
        f"http://h/{key}",
    ):
        assert key not in str(redact(place))


@pytest.mark.parametrize(
    ("place", "secret"),
    [
        ("https://me:p@ss@example.org/x", "p@ss"),
        ("amqp://guest:gu@e:st@host", "gu@e"),
        ("postgresql://me:p/w@host/db", "p/w"),
        ("mysql://u:hunter2@h:3306/x", "hunter2"),
        ("https://oauth2tokenabcdef1234@host/x", "oauth2token"),
        ("https://h/x?token=abc&sig=zz%2Fq&a=1", "zz%2Fq"),
        ("https://b/x?X-Amz-Credential=CRED&X-Amz-Signature=deadbeef", "deadbeef"),
        ("https://b/x?X-Amz-Credential=CRED&X-Amz-Signature=deadbeef", "CRED"),
        ("DefaultEndpointsProtocol=https;AccountKey=" + "a" * 86 + "==;", "aaaa"),
        ("+x={api_key: hunter2, a: 1}", "hunter2"),
        ("+x={a: 1, nested: {password: 'hun ter2'}}", "hun ter2"),
        ("Could not override 'x.api_key', use +x.api_key=hunter2", "hunter2"),
        ({"credentials": {"user": "bob", "p": "hunter2"}}, "hunter2"),
        ({"passwords": ["hunter2"]}, "hunter2"),
        ({"password": 123456}, "123456"),
        ({"WANDB_API_KEY": "0123456789" * 4}, "0123456789"),
        ({"slack_bot_token": "hunter2"}, "hunter2"),
        ({"aws_secret_access_key": "hunter2"}, "hunter2"),
        ('{"api_key": "hunter2"}', "hunter2"),
        ("+x.y=[{password: hunter2}]", "hunter2"),
        ("+x.y=[{a: 1}, {b: [{password: hunter2, c: 1}]}]", "hunter2"),
        ({"accessToken": "hunter2"}, "hunter2"),
        ({"clientSecret": "hunter2", "apiKey": "hunter2", "privateKey": "hunter2"}, "hunter2"),
        ({"db_pass": "hunter2", "pass": "hunter2", "pw": "hunter2"}, "hunter2"),
        ({"auth": "me:hunter2"}, "hunter2"),
        ("auth: me:hunter2", "hunter2"),
        ("password: hunter2", "hunter2"),
        ("a: 1\naws_secret_access_key: hun/ter2", "hun/ter2"),
        ("--password hunter2", "hunter2"),
        ("x --api-key 'hun ter2' y", "hun ter2"),
        ("curl -u me:hunter2 http://h", "hunter2"),
        ("Authorization: Basic aHVudGVyMg==", "aHVudGVyMg"),
        ("-H 'Authorization: Bearer hunter2'", "hunter2"),
        ("https://h/?pass=hunter2", "hunter2"),
        ("https://h/?pw=hunter2", "hunter2"),
        ("https://me:1234/abc@host", "1234/abc"),
        ("wandb login 0123456789abcdef0123456789abcdef01234567", "0123456789abcdef"),
        ("see passwords=[{a: hunter2}] there", "hunter2"),
        ("the W&B wandb key: 0123456789abcdef0123456789abcdef01234567", "0123456789abcdef"),
        ("hparams_search.storage=postgresql://user:hunter2@host:5432/db", "hunter2"),
        ({"a": [{"storage": "postgresql://user:hunter2@host/db"}]}, "hunter2"),
        ("data.path='https://h/x.csv?token=abc123'", "abc123"),
        ("https://discord.com/api/webhooks/123456789012345678/abcDEF-ghi_jkl", "abcDEF"),
        ("https://hooks.slack.com/services/T00000000/B00000000/XXXXabcd", "XXXXabcd"),
        ("https://hooks.slack.com/workflows/T0/A0/1/zzzz9999", "zzzz9999"),
        ("https://api.telegram.org/bot12345:ABCdef/sendMessage", "ABCdef"),
        ({"webhook": "https://h/a/hunter2"}, "hunter2"),
        ({"username": "bob", "key": "0123abcd"}, "0123abcd"),
        ('{"username":"bob","key":"0123abcd"}', "0123abcd"),
        ("+x={username: bob, key: 0123abcd}", "0123abcd"),
        ("logger.x.key=s3cr3tvalue", "s3cr3t"),
        ({"key": "s3cr3tvalue"}, "s3cr3t"),
        ({"auth": {"user": "me", "value": "hunter2"}}, "hunter2"),
        ({"auth": ["me", "hunter2"]}, "hunter2"),
        ("+x.auth={user: me, value: hunter2}", "hunter2"),
        ("+mytoken=hunter2", "hunter2"),
        ("KAGGLE_KEY=hunter2", "hunter2"),
        ("COMET_API_KEY=hunter2", "hunter2"),
        ("NEPTUNE_API_TOKEN=hunter2", "hunter2"),
        ("eyJhcGlfYWRkcmVzcyI6Imh0dHBzOi8vYXBwLm5lcHR1bmUuYWkifQ==", "eyJhcGlf"),
        ({KEYS[0]: 1}, KEYS[0]),
        ({"a": {"hf_" + "z9" * 17: {"b": 1}}}, "hf_z9"),
    ],
)
def test_secrets_by_where_they_stand(place, secret):
    assert secret not in str(redact(place))
    assert REDACTED in str(redact(place))


@pytest.mark.parametrize(
    "text",
    [
        "val/loss",
        "train[:1%]",
        "google-bert/bert-base-uncased",
        "https://huggingface.co/x?revision=main",
        "http://localhost:8080/a@b",
        "s3://bucket/path@v1/x",
        "hf://datasets/me/x@main/train.csv",
        "git@github.com:me/x.git",
        "0123456789abcdef0123456789abcdef01234567",
        "tokenizer.eos_token=</s>",
        "train.py --multirun --config-dir mine",
        "error: data.path: there is no file",
        "bypass: x",
        "compass=north",
        {"bypass": "x", "auth": "basic", "fileKey": "x", "eosToken": "</s>", "unpassed": "x"},
        "cache_key=abc",
        "monkey=banana",
        "model.encoder.*",
        "tag(log, interval(5e-6, 1e-4))",
        "data.columns={text: sentence1, label: label}",
        "data.path='my.csv[:100]'",
        "tokenizer.append=<|eos|>",
        "generation.forced_bos_token_id=250004",
        "data.columns.key=id",
        "data.columns={key: sentence_2, user: author}",
        {"columns": {"key": "id", "username": "author"}},
        {"columns": {"key": "paragraph_12", "text": "key"}, "key": "val/loss"},
        {"start_token": 5, "mytoken": 5, "token": 3, "num_token": 7, "eot_token": "<|eot|>"},
        {"decoder_start_token_id": 0, "bos_token": "hello", "unk_token": "[UNK]", "auth": None},
        {"eos_token": "</s>", "image_token": "<image>", "pad_token_id": 3, "sort_key": "x"},
    ],
)
def test_what_is_no_secret_stays(text):
    assert redact(text) == text


def test_values_of_the_environment_and_of_what_was_typed(monkeypatch):
    monkeypatch.setattr(secrets, "_known", set())
    monkeypatch.setenv("MY_API_TOKEN", "tr0ub4dor")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "falsefalse")
    remember(["+x={password: correct-horse}", "+y=[{db_pass: 'battery-staple'}]", "seed=1"])
    assert (
        redact("tr0ub4dor, correct-horse, battery-staple and falsefalse")
        == f"{REDACTED}, {REDACTED}, {REDACTED} and falsefalse"
    )


def test_log_lines_and_tracebacks(caplog, capsys, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    before = logging.getLogRecordFactory()
    try:
        hide_secrets()
        try:
            raise ValueError(KEYS[0])
        except ValueError as error:
            logging.getLogger("any").exception("with %s and %d", KEYS[1], 7)
            sys.excepthook(type(error), error, error.__traceback__)
    finally:
        logging.setLogRecordFactory(before)
    assert f"with {REDACTED} and 7" in caplog.text
    last = capsys.readouterr().err  # of a process that ends
    for text in (caplog.text, last):
        assert f"ValueError: {REDACTED}" in text
        assert KEYS[0] not in text


def test_a_command_and_a_trial_hide_secrets_from_the_start(tmp_path, monkeypatch):
    """Before anything is logged, and in the process of a trial too."""
    for name, module in (("argv", sys), ("excepthook", sys)):
        monkeypatch.setattr(module, name, getattr(module, name))
    begin, before = logging.getLogRecordFactory(), []

    def look(*args, **kwargs):
        before.append(getattr(logging.getLogRecordFactory(), "redacts", False))
        raise UserError("seen")

    monkeypatch.setattr(cli, "prepare", look)
    monkeypatch.setattr(trials, "call", look)
    for start in (
        lambda: cli.main("train"),
        lambda: trials.train_trial(tmp_path, [], typed=Typed(), place="."),
    ):
        logging.setLogRecordFactory(begin)
        sys.argv = ["train.py"]
        with suppress(SystemExit):
            start()
    logging.setLogRecordFactory(begin)
    assert before == [True, True]


@pytest.mark.parametrize("part", ["secret_", "x.hooks.", "eyJa.eyJ", "\n  ", "a=[", "{a: ["])
def test_a_long_text_is_looked_through(part):
    """Time that grew with the square of its length would be minutes here."""
    text = part * (60_000 // len(part))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "_known", set())
        assert KEYS[0] not in redact(f"https://u:{text} {KEYS[0]}")
        remember([f"tags=[{text}"])


def test_a_key_of_many_lines_in_a_long_text():
    lines = "\n".join(["-----BEGIN RSA PRIVATE KEY-----", *["aB3+" * 16] * 300])
    found = redact(f"before\n{lines}\n-----END RSA PRIVATE KEY-----\nafter, password=hunter2")
    assert found == f"before\n{REDACTED}\nafter, password={REDACTED}"


def test_a_sweep_over_secrets_is_refused():
    with pytest.raises(UserError, match="sweeps over what looks like a secret"):
        split([f"tags=[{KEYS[0]}],[b]", "seed=1,2"], {})


def test_no_file_of_a_run_holds_one(bart_cnn, monkeypatch):
    """Nor TensorBoard's, W&B's, or the model's card; and a message has none either."""
    monkeypatch.setenv("MY_SERVICE_TOKEN", "tr0ub4dor-and-3")
    typed = [
        f"tags=[{KEYS[0]}, tr0ub4dor-and-3]",
        "+callbacks.best_model.card.api_key=hunter2hunter2",
    ]
    typed += ["callbacks.best_model.card.experiment='https://me:p@55w0rd@h/x?sig=s1gs1g'"]
    loggers = ["logger=wandb", "logger.wandb.offline=true", "logger.wandb.name=hunter2hunter2"]
    loggers += ["+logger.tb._target_=lightning.pytorch.loggers.TensorBoardLogger"]
    loggers += ["+logger.tb.save_dir='${paths.output_dir}'"]
    run = hydralight.train([*bart_cnn, "debug=limit", *typed, *loggers])
    for path in run.path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for secret in (KEYS[0], "tr0ub4dor", "hunter2", "p@55w0rd", "s1gs1g"):
                assert secret.encode() not in content, (path, secret)
    with pytest.raises(UserError) as raised:
        hydralight.train([*bart_cnn, "optimizer.api_key=hunter3hunter3"])
    assert "hunter3" not in str(raised.value)
