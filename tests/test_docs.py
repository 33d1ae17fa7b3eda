"""What pages, README and docstrings point at exists: pages, headings, links, files, commands, flags, config fields."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import own_flags

from configs import common
from docs import reference
from igd_jax import prepare
from igd_jax.settings.config_grid import changed, check_decodes, parse_axis, points
from igd_jax.settings.experiments import read_config
from igd_jax.settings.settings import settings_from

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
MADE = [ROOT / "docs" / page for page in reference.PAGES]
"""Pages that exist in the built site only."""
TEXTS = [ROOT / "README.md", *PAGES]
LOGS = [ROOT / "LOG.md", ROOT / "CHANGELOG.md"]
FOLDERS = ("igd_jax", "configs", "benchmarks", "launch", "docs", "tests")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")) if path.suffix in (".py", ".sh")]
OTHERS = ["Makefile", "setup.py", "pyproject.toml", "mkdocs.yml", "CONTRIBUTING.md"]
FILES = [*SOURCES, *TEXTS, *LOGS, *(ROOT / name for name in OTHERS)]

NO_FIELD = {"igd_jax", "benchmarks", "configs", "context", "batch", "index", "trie", "np", "nnx", "jax", "docs"}
"""First words of dotted names that are Python and no config field."""
SUFFIXES = {
    "py",
    "md",
    "html",
    "sh",
    "json",
    "jsonl",
    "parquet",
    "safetensors",
    "npy",
    "npz",
    "png",
    "csv",
    "txt",
    "data",
    "item",
    "dat",
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def plain(text: str) -> str:
    """A text without code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def headings(page: str) -> set[str]:
    return set(re.findall(r"^#+ (.+?)\s*$", plain(page), re.MULTILINE))


def anchors(page: str) -> set[str]:
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(page)}


def citations(text: str) -> list[tuple[str, str]]:
    """Page and heading of each ``docs/PAGE.md, Heading``; a heading begins with a capital and ends at a sign."""
    one_line = re.sub(r"\s*\n[\s#]*", " ", text)
    return re.findall(r"\bdocs/([\w/]+)\.md(?:, ([A-Z][^.,;:()\"'`]*))?", one_line)


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Module and flags of each ``python -m ...``."""
    joined = text.replace("\\\n", " ")
    for module, rest in re.findall(r"python -m ((?:igd_jax|benchmarks)\.\w+)([^\n`|;]*)", joined):
        yield module, re.findall(r"(?<!\S)--(\w+)(?![\w.])", rest)


def flags_of(module: str) -> set[str]:
    """Names of all flags that a program defines, itself or by what the programs share."""
    shared = [*(ROOT / "igd_jax" / "settings").glob("*.py"), ROOT / "benchmarks" / "common.py"]
    files = [ROOT.joinpath(*module.split(".")).with_suffix(".py"), *shared]
    found = [match for file in files for match in re.findall(r'DEFINE_(\w+)\(\s*"(\w+)"', file.read_text())]
    return {name for _, name in found} | {f"no{name}" for kind, name in found if kind == "bool"}


def config_fields() -> set[str]:
    """Every ``section.field``, and every argument of a method as ``method.args.NAME``."""
    config = common.get_config()
    fields = {f"{section}.{field}" for section in config for field in config[section]}
    files = "".join(path.read_text() for path in (ROOT / "configs").glob("*.py"))
    return fields | {f"method.args.{name}" for name in re.findall(r"config\.method\.args\.(\w+) =", files)}


def fields_in(text: str) -> set[str]:
    """Config fields that a text names: in options, or as dotted names in backquotes."""
    named = set(re.findall(r"--config\.([a-z][\w.]*\w)", text))
    named |= set(re.findall(r"--(?:choose|grid|evaluate)=([a-z_.]+)=", text))
    for word in re.findall(r"`(?:config\.)?([a-z_]+(?:\.[a-z_]+)+)(?:=[^`]*)?`", plain(text)):
        first, *_, last = word.split(".")
        if first not in NO_FIELD and last not in SUFFIXES:
            named.add(word)
    return named


def test_the_readers_of_texts_find_what_they_should():
    assert citations("(docs/a.md, One\n    thing). see docs/b/c.md, which") == [("a", "One thing"), ("b/c", "")]
    assert anchors("# A\n## D3's way, twice\n```\n# no\n```\n") == {"a", "d3s-way-twice"}
    given = "`python -m igd_jax.train --config=a.py \\\n --config.data.dir=D --workdir=R` --not"
    assert list(commands(given)) == [("igd_jax.train", ["config", "workdir"])]
    assert fields_in("`decode.alpha=0.2` `config.data.dir` `igd_jax.train` `meta.json` --grid=a.b=1") == {
        "decode.alpha",
        "data.dir",
        "a.b",
    }
    assert {"workdir", "config", "split"} <= flags_of("igd_jax.evaluate")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_is_cited_that_is_not_in_the_project(path: Path):
    if path == Path(__file__):
        return
    text = path.read_text(encoding="utf-8")
    foreign = re.findall(r"\bspec/.*|\bDESIGN\b.*", text)
    assert not foreign
    assert path.is_relative_to(ROOT / "tests") or "../shared" not in text


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_cited_pages_and_headings_exist(path: Path):
    if path == Path(__file__):
        return
    for page, heading in citations(path.read_text(encoding="utf-8")):
        file = ROOT / "docs" / f"{page}.md"
        assert file.is_file(), f"docs/{page}.md"
        assert not heading or heading in headings(file.read_text(encoding="utf-8")), f"docs/{page}.md, {heading}"


def test_code_cites_pages():
    cited = {page for path in SOURCES for page, heading in citations(path.read_text(encoding="utf-8")) if heading}
    assert {"methods", "methods/igd"} <= cited


@pytest.mark.parametrize("path", [*TEXTS, *LOGS], ids=name_of)
def test_relative_links_resolve(path: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", plain(path.read_text(encoding="utf-8"))):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        page = (path.parent / file).resolve() if file else path
        if page in MADE and path in PAGES and not anchor:
            continue
        assert page.exists(), target
        assert not anchor or anchor in anchors(page.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_named_programs_and_modules_exist(path: Path):
    for named in re.findall(r"(?<![\w/.*])([\w/]+\.(?:py|sh))\b", path.read_text(encoding="utf-8")):
        if "NAME" not in named:
            places = [ROOT / named, *(ROOT / folder / named for folder in (*FOLDERS, "igd_jax/carried"))]
            assert any(place.is_file() for place in places), named


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_commands_and_their_flags_exist(path: Path):
    text = path.read_text(encoding="utf-8")
    for module, flags in commands(text):
        assert ROOT.joinpath(*module.split(".")).with_suffix(".py").is_file(), module
        assert set(flags) <= flags_of(module), f"{module} {flags}"
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"(?:`|^)make ([\w-]+)", text, re.MULTILINE):
        assert target in targets, f"make {target}"


@pytest.mark.parametrize("path", [*PAGES, *sorted((ROOT / "configs").glob("*.py"))], ids=name_of)
def test_experiments_are_given_by_a_name_that_is_known_outside_a_clone(path: Path):
    assert not re.findall(r"--(?:config|decode_as)=configs/", path.read_text(encoding="utf-8"))


def test_extras_are_installed_in_place():
    """Without -e, pip replaces an editable install by a copy, which has none of one's own methods and sources."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in TEXTS)
    assert set(re.findall(r"pip install ([^.\n]*?)'?\.\[", text)) == {"-e "}


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_config_fields_exist(path: Path):
    unknown = fields_in(path.read_text(encoding="utf-8")) - config_fields()
    assert not unknown


@pytest.mark.parametrize("page", ["launch", "hosts", "plan", "howto/tpu_pod", "howto/slurm"])
def test_pages_about_many_devices_name_what_these_have_to_divide(page: str):
    """And options that a page shows for 32 make settings that are not refused."""
    text = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
    assert {"train.micro_batch_size", "decode.batch_size"} <= fields_in(text)
    shown = dict(re.findall(r"--config\.(\w+\.\w+)=(32)\b", text))
    if page != "howto/slurm":  # which shows them for 16
        given = {"mesh.data": 1, "mesh.fsdp": 32} | {field: int(value) for field, value in shown.items()}
        settings_from(changed(read_config("igd"), given), needs=())


def test_a_pod_is_planned_with_the_flags_that_it_trains_with():
    text = (ROOT / "docs" / "howto" / "tpu_pod.md").read_text("utf-8")
    first, *more = re.findall(r"flags\+?=\((.*?)\)", text, re.DOTALL)
    given = {field: int(value) for field, value in re.findall(r"--config\.(\S+)=(\d+)", first)}
    settings_from(changed(read_config("igd"), given), needs=())
    assert set(given) == {"mesh.data", "mesh.fsdp", "train.micro_batch_size", "decode.batch_size"}
    assert not re.search(r"=\d", "".join(more))
    planned, trained = (text.index(command) for command in ("igd_jax.plan", "launch/tpu_pod.sh --config"))
    assert text.index(first) < planned < trained
    assert all('"${flags[@]}"' in text[start:].split("\n")[0] for start in (planned, trained))


@pytest.mark.parametrize("name", ["bigrec", "d3"])
def test_choices_that_the_page_of_a_method_shows_can_be_made(name: str):
    """Each value makes settings that are not refused, with the other options shown and the method's experiment."""
    spans = re.findall(r"`([^`]*--choose=[^`]*=[^`]*)`", (ROOT / "docs" / "methods" / f"{name}.md").read_text("utf-8"))
    assert spans
    for span in spans:
        options = dict(re.findall(r"--([\w.]+)=(\S+)", span))
        given = {option.removeprefix("config."): value for option, value in options.items() if "." in option}
        config = changed(read_config(name), given)
        axis = parse_axis(options["choose"], config, option="--choose")
        check_decodes(axis, config, option="--choose")
        for point in points([axis]):
            settings_from(changed(config, point), needs=())


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_python_examples_parse_and_import_what_there_is(path: Path):
    for block in re.findall(r"^```python\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    assert hasattr(importlib.import_module(node.module), alias.name), f"{node.module}.{alias.name}"


def test_every_source_and_experiment_has_its_line():
    data, methods = ((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("data", "methods"))
    table = data[data.index("## Sources") :].split("\n\n")[2]
    sources = {path.stem for path in (ROOT / "igd_jax/data/sources").glob("[!_]*.py")}
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == sources
    for path in (ROOT / "configs").glob("[!_]*.py"):
        assert path.stem in ("common", "quickstart") or f"`{path.name}`" in methods, path.name


def test_every_option_of_prepare_has_its_line():
    data = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    with own_flags():
        prepare.define_flags()
        options = {flag.name for flag in prepare.options()}
    assert {"k_core", "columns"} < options
    assert options <= set(re.findall(r"`--(\w+)`", data))


def test_every_page_is_in_the_navigation():
    listed = re.findall(r"([\w/]+\.md)", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = sorted(str(page.relative_to(ROOT / "docs")) for page in [*PAGES, *MADE])
    assert sorted(listed) == pages
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert [page for page in pages if f"]({page})" not in index] == ["index.md"]
