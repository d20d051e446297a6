import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from gateway import __main__ as gateway
from gateway import api_keys, error_bodies, render, routes
from gateway.limits import Limits
from gateway.options import OPTIONS, OptionError, resolve
from launcher.plan import make_plan
from visionserve import errors
from visionserve.errors import ServiceError

DOCUMENT = Path(__file__).parents[3] / "docs" / "gateway.md"
DEFAULTS = resolve({}, {})


def written(**options: Any) -> str:
    return render.text({**DEFAULTS, **options}, options.get("api_keys_file"))


# ---- options


def test_the_command_line_wins_over_the_environment_and_that_over_the_default() -> None:
    assert resolve({}, {})["port"] == 8000
    assert resolve({}, {"GATEWAY_PORT": "8001"})["port"] == 8001
    assert resolve({"port": "8002"}, {"GATEWAY_PORT": "8001"})["port"] == 8002
    assert resolve({"port": None}, {"GATEWAY_PORT": ""})["port"] == 8000


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        *(("host", "0.0.0.0", "0.0.0.0"), ("host", "::", "[::]"), ("records", "off", "")),
        *(("cors_origins", "https://a.b, http://c:80", ("https://a.b", "http://c:80")), ("cors_origins", "*", ("*",))),
        *(("trusted_proxies", "10.0.0.0/8 ::1", ("10.0.0.0/8", "::1/128")), ("ui_url", "http://ui:8501/", "ui:8501")),
        *(("nginx_version", "1.28.0", (1, 28, 0)), ("nginx_version", "", ())),
        *(("inference", "server:8080", "server:8080"), ("api_keys_file", "/run/keys", Path("/run/keys"))),
    ],
)
def test_an_options_text_becomes_its_value(name: str, text: str, value: Any) -> None:
    assert resolve({name: text}, {})[name] == value


def test_without_ipv6_everything_is_all_of_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    assert [resolve({"host": host}, {})["host"] for host in ("::", "::1")] == ["0.0.0.0", "[::1]"]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        *(
            ("port", "0", "1 to 65535"),
            ("server_memory", "3 GB", "number of bytes"),
            ("server_cpus", "0", "cores"),
            ("port", "80a", "1 to 65535"),
            ("port", "٣", "1 to 65535"),
        ),
        *(("max_body_mib", "17", "1 to 16"), ("concurrency", "65", "0 to 64"), ("host", "localhost", "IP address")),
        *(
            ("inference", "8080", "HOST:PORT"),
            ("inference", "a:99999", "HOST:PORT"),
            ("inference", "a b:1", "HOST:PORT"),
        ),
        *(("temp", "tmp", "absolute path"), ("temp", "/tmp; x", "absolute path")),
        *(("cors_origins", "page.example", "origins"), ("cors_origins", "https://a/b", "origins")),
        *(("trusted_proxies", "10.0.0.1/8", "networks"), ("ui_url", "https://ui:1", "http://HOST:PORT")),
        *(
            ("ui_url", "http://ui:1/x", "http://HOST:PORT"),
            ("ui_url", "http://ui", "HOST:PORT"),
            ("ui_path", "ui", "/ui/"),
            ("ui_path", "/docs/", "not a route"),
        ),
    ],
)
def test_a_bad_value_is_one_sentence_that_names_its_source(name: str, text: str, reason: str) -> None:
    option = next(option for option in OPTIONS if option.name == name)
    with pytest.raises(OptionError, match=re.escape(reason)) as refused:
        resolve({name: text}, {})
    assert str(refused.value).startswith(option.flag)
    with pytest.raises(OptionError, match=f"^{option.variable} must be "):
        resolve({}, {option.variable: text})


def test_a_misspelled_variable_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(
        OptionError, match=r"GATEWAY_API_KEY_FILE is not an option: did you mean GATEWAY_API_KEYS_FILE\?"
    ):
        resolve({}, {"GATEWAY_API_KEY_FILE": "/run/keys"})


def test_a_certificate_without_its_key_is_refused() -> None:
    with pytest.raises(OptionError, match="both --tls-certificate and --tls-key"):
        resolve({"tls_certificate": "/tls.crt"}, {})


def test_help_tells_every_option_and_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        gateway.main(["render", "--help"])
    assert ended.value.code == 0
    output = capsys.readouterr().out
    assert all(option.flag in output and option.default in output for option in OPTIONS)


def test_the_document_lists_every_option_with_its_default() -> None:
    listed = dict(re.findall(r"\| `(--[a-z-]+)` \| ([^|]*?) ?(?=\|)", DOCUMENT.read_text()))
    assert listed == {option.flag: option.default for option in OPTIONS}


# ---- limits


@pytest.mark.parametrize("memory", ["900m", "1g", "1536m", "2g", "3g", "8g", "64g", ""])
def test_the_bodies_that_are_admitted_fit_into_javas_memory(memory: str) -> None:
    options = resolve({"server_memory": memory, "server_cpus": "2"}, {})
    limits, plan = Limits.of(options), make_plan(2, options["server_memory"])
    in_flight = limits.small * 1_000_000 + limits.large * (options["max_body_mib"] << 20)
    assert limits.small >= 1 and limits.large >= 1
    assert limits.small + limits.large < 100
    assert in_flight < min(plan.heap_bytes, plan.direct_bytes)


def test_a_small_server_admits_fewer_and_a_client_half_of_them() -> None:
    small, large = (Limits.of(resolve({"server_memory": memory, "server_cpus": "2"}, {})) for memory in ("1536m", "8g"))
    assert small.small < large.small == 64
    assert small.large < large.large
    for limits in (small, large):
        assert limits.small_per_client == (limits.small + 1) // 2


def test_what_is_given_wins_and_workers_share_it() -> None:
    limits = Limits.of(resolve({"concurrency": "8", "per_client": "6", "workers": "2", "uploads": "100"}, {}))
    assert (limits.small, limits.small_per_client, limits.uploads) == (4, 3, 50)
    assert limits.large <= 4


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3g", 3 << 30),
        ("3Gi", 3 << 30),
        ("1536m", 1536 << 20),
        ("3221225472", 3 << 30),
        ("64GiB", 64 << 30),
        ("", None),
    ],
)
def test_memory_is_read_as_docker_and_kubernetes_write_it(text: str, value: int | None) -> None:
    assert resolve({"server_memory": text}, {})["server_memory"] == value


# ---- keys


def test_keys_are_read_by_name_with_comments_and_blank_lines(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    longest = "k" * 258
    file.write_text(
        "# clients\n\n alice : 0123456789abcdef \nbob:~default/0123456789==\n"
        f"carol:fedcba9876543210 # of the lab\n\t# nobody\ndave:{longest}\t#\n"
    )
    assert api_keys.read(file) == {
        "alice": "0123456789abcdef",
        "bob": "~default/0123456789==",
        "carol": "fedcba9876543210",
        "dave": longest,
    }


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        *(("carol", "is not `name:key`"), ("carol:", "is not `name:key`"), (":0123456789abcdef", "is not `name:key`")),
        *(("a b:0123456789abcdef", "is not `name:key`"), ('carol:0123456789"abcdef', "is not `name:key`")),
        *(("carol:0123456789$abcdef", "is not `name:key`"), ("carol:" + "k" * 259, "over 258 characters")),
        *(("carol:0123456789abcde", "under 16 characters"), ("alice:fedcba9876543210", "repeats the name alice")),
        *(("carol:0123456789ABCDEF", "another line"), ("carol:0123456789abcdef", "another line")),
    ],
)
def test_an_unusable_line_is_refused_by_its_number_and_never_shown(tmp_path: Path, line: str, reason: str) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# first\nalice:0123456789abcdef\n{line}\n")
    with pytest.raises(OptionError, match=reason) as refused:
        api_keys.read(file)
    assert str(refused.value).startswith(f"Line 3 of {file} ")
    key = line.partition(":")[2]
    assert not key or key not in str(refused.value)


def test_a_missing_file_of_keys_stops_and_an_empty_one_asks_for_none(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"cannot be read \(No such file or directory\)"):
        render.render({**DEFAULTS, "api_keys_file": tmp_path / "none"}, tmp_path / "out")
    empty = tmp_path / "empty"
    empty.write_text("# nobody yet\n")
    configuration = render.render({**DEFAULTS, "api_keys_file": empty}, tmp_path / "out").read_text()
    assert "$presented_key" not in configuration


def test_keys_are_their_owners_to_read_and_in_no_other_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("alice:0123456789abcdef\n")
    for _ in range(2):  # also where an older file lies
        configuration = render.render({**DEFAULTS, "api_keys_file": file}, tmp_path / "out")
    modes = {path.name: path.stat().st_mode & 0o777 for path in configuration.parent.iterdir()}
    assert modes == {"nginx.conf": 0o644, "keys.conf": 0o600}
    assert "0123456789abcdef" not in configuration.read_text()


@pytest.mark.parametrize(
    ("version", "keeps"),
    [((), False), ((1, 22, 1), False), ((1, 27, 3), False), ((1, 27, 4), True), ((1, 28, 0), True)],
)
def test_kept_connections_outlive_a_reload_where_nginx_is_new_enough(version: tuple[int, ...], keeps: bool) -> None:
    assert ("keepalive_min_timeout" in written(nginx_version=version)) is keeps


def test_a_configuration_for_another_nginx_is_written_and_not_checked_with_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nginx = tmp_path / "nginx"
    nginx.write_text("#!/bin/sh\n[ \"$*\" = -v ] && echo 'nginx version: nginx/1.22.1 (Debian)' >&2\n")
    nginx.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    folder = tmp_path / "out"
    assert gateway.main(["render", "--out", str(folder), "--nginx-version", "1.28.0"]) == 0
    assert "for nginx 1.28.0 but not checked: the one installed here is 1.22.1." in capsys.readouterr().out
    assert "keepalive_min_timeout" in (folder / "nginx.conf").read_text()
    nginx.write_text('#!/bin/sh\n[ "$*" = -v ] && echo \'nginx version: nginx/1.28.0\' >&2; [ "$*" = -v ] || exit 1\n')
    assert gateway.main(["render", "--out", str(folder)]) == 2  # the same version: checked
    assert "nginx rejects the configuration" in capsys.readouterr().err
    nginx.write_text("#!/bin/sh\necho hello >&2\n")
    assert gateway.main(["render", "--out", str(folder)]) == 2
    assert "does not say which version" in capsys.readouterr().err


# ---- answers


def test_the_gateways_errors_are_the_librarys() -> None:
    codes = {kind.status: kind.code for kind in vars(errors).values() if is_error(kind)}
    for status, error in error_bodies.errors(max_body_mib=16).items():
        content, v2 = json.loads(error_bodies.native(error)), json.loads(error_bodies.open_inference(error))
        assert content["request_id"] == v2["request_id"] == "$answer_id"
        assert status in codes
        assert content["error"]["code"] in {kind.code for kind in vars(errors).values() if is_error(kind)}
        assert content["error"] == {"code": v2["code"], "message": v2["error"]}
    assert error_bodies.errors(3)[413].message.startswith("The body is over 3 MiB")


def is_error(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, ServiceError) and kind is not ServiceError


def test_every_retry_after_belongs_to_an_error() -> None:
    assert set(error_bodies.RETRY_AFTER) <= set(error_bodies.errors(16))


def test_text_that_nginx_would_read_as_its_own_is_refused() -> None:
    for text in ("it's", "$host", "a\\b"):
        with pytest.raises(ValueError, match="nginx cannot quote"):
            error_bodies._text({"message": text})


# ---- routes and configuration


@pytest.mark.parametrize(
    ("path", "kinds"),
    [
        *(("/predictions/flowers", ["predictions"]), ("/explanations/a.b-c_d~1/2.0", ["explanations"])),
        *(("/models", ["models"]), ("/v2/models/m/versions/1.0/infer", ["predictions"]), ("/readyz", ["health"])),
        *(
            ("/metrics", []),
            ("/predictions/a/b/c", []),
            ("/predictions/a\n", []),
            ("/openapixyaml", []),
            ("/docs/../models", []),
            ("/drain", []),
        ),
        *(("/v1/models/m:predict", ["predictions"]), ("/v1/models/m", ["models"]), ("/v2/models/m/ready", ["health"])),
        *(("/docs", ["docs"]), ("/docs/swagger-ui-bundle.js", ["docs"]), ("/openapi.yaml", ["docs"])),
    ],
)
def test_a_path_belongs_to_one_route_or_to_none(path: str, kinds: list[str]) -> None:
    known = (*routes.INFERENCE, *routes.STATUS, *routes.DOCS)
    matching = [route.kind for route in known if re.fullmatch(route.pattern, path)]
    assert matching == kinds


def test_what_an_option_turns_off_is_not_in_the_configuration() -> None:
    plain = written()
    for word in ("ssl", "limit_req", "Access-Control", "real_ip", "Upgrade", "return 401;"):
        assert word not in plain
    full = written(
        tls_certificate=Path("/c"),
        tls_key=Path("/k"),
        rate=5,
        cors_origins=("*",),
        trusted_proxies=("10.0.0.0/8",),
        ui_url="127.0.0.1:8501",
        api_keys_file=Path("/keys"),
    )
    for word in ("ssl_protocols TLSv1.2 TLSv1.3", "limit_req", "Access-Control", "real_ip", "Upgrade", "return 401;"):
        assert word in full


def test_it_listens_where_it_is_told_and_writes_only_where_it_may() -> None:
    text = written(host="0.0.0.0", port=8005, temp=Path("/scratch"))
    assert re.findall(r"^\s*listen (.*);$", text, re.MULTILINE) == [
        "0.0.0.0:8005",
        "unix:/scratch/gateway-small.sock",
        "unix:/scratch/gateway-large.sock",
    ]
    assert not re.findall(r"^\s*user ", text, re.MULTILINE)
    paths = re.findall(r"^\s*(?:pid|\w+_temp_path) (.*);$", text, re.MULTILINE)
    assert len(paths) == 6
    assert all(path.startswith("/scratch/") for path in paths)


def test_a_folder_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for option in OPTIONS:
        monkeypatch.delenv(option.variable, raising=False)
    (tmp_path / "file").write_text("")
    assert gateway.main(["render", "--out", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.strip().endswith("cannot be written (File exists): choose another folder.")


def test_render_says_whether_nginx_has_read_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "nginx", lambda: None)
    assert gateway.main(["render", "--out", str(tmp_path / "out")]) == 0
    assert "not checked" in capsys.readouterr().out
    assert gateway.main(["run"]) == 2
    assert "apt-get install nginx-light" in capsys.readouterr().err


def test_a_missing_folder_for_bodies_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "nginx", lambda: "/usr/sbin/nginx")
    assert gateway.main(["run", f"--temp={tmp_path / 'none'}"]) == 2
    error = capsys.readouterr().err
    assert error == f"{tmp_path / 'none'} cannot be written (No such file or directory): choose another --temp.\n"


def test_the_warning_about_a_page_beside_keys_is_given_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "nginx", lambda: None)
    (tmp_path / "keys").write_text("alice:0123456789abcdef\n")
    options = ["--api-keys-file", str(tmp_path / "keys"), "--ui-url", "http://127.0.0.1:8501"]
    assert gateway.main(["render", "--out", str(tmp_path / "out"), *options]) == 0
    assert capsys.readouterr().err.count("the web UI needs no API key") == 1


def test_an_offset_shifts_the_ports_of_the_launcher_and_the_gateways_own() -> None:
    options = resolve({"port_offset": "100", "status": "127.0.0.1:9000"}, {"GATEWAY_TLS_PORT": "9443"})
    assert (options["port"], options["inference"], options["records"]) == (8100, "127.0.0.1:8180", "127.0.0.1:8184")
    assert (options["status"], options["tls_port"]) == ("127.0.0.1:9000", 9443)


def test_keys_may_be_in_a_variable_instead() -> None:
    keys = "alice:0123456789abcdef,\n bob:fedcba9876543210 ,"
    assert api_keys.parse(keys) == {"alice": "0123456789abcdef", "bob": "fedcba9876543210"}
    with pytest.raises(OptionError, match=r"Entry 2 of GATEWAY_API_KEYS repeats the name alice"):
        api_keys.parse("alice:0123456789abcdef,alice:fedcba9876543210")
    with pytest.raises(OptionError, match="not in both"):
        resolve({"api_keys": "a:b", "api_keys_file": "/keys"}, {})
