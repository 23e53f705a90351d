"""What Android Studio builds is what Maven builds and tests here: the same modules, folders and versions.

Gradle and Google's repository are not needed: the files are compared as text.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

ANDROID = Path(__file__).resolve().parents[1] / "android_demo"
POM = "{http://maven.apache.org/POM/4.0.0}"
APP = ANDROID / "app/src/main"
CATALOG = (ANDROID / "gradle/libs.versions.toml").read_text()


def gradle(module: str) -> str:
    return (ANDROID / module / "build.gradle.kts").read_text()


def catalog() -> dict[str, str]:
    """The versions of the catalog."""
    section = CATALOG.partition("[versions]")[2].partition("[")[0]
    return dict(re.findall(r'^(\w+) = "(.*)"$', section, re.MULTILINE))


def properties() -> dict[str, str]:
    """The properties of the parent pom."""
    found = ElementTree.parse(ANDROID / "pom.xml").getroot().find(f"{POM}properties")
    assert found is not None
    return {entry.tag.removeprefix(POM): entry.text or "" for entry in found}


def poms() -> set[str]:
    """The modules of the parent pom, the ones in profiles too."""
    return {entry.text or "" for entry in ElementTree.parse(ANDROID / "pom.xml").iter(f"{POM}module")}


def adapter_version(module: str, source: str) -> str:
    text = next((ANDROID / module / "src/main/kotlin").rglob(source)).read_text()
    found = re.search(r'const val VERSION = "\w+ ([\d.]+)"', text)
    assert found is not None
    return found[1]


def test_both_builds_have_the_same_modules() -> None:
    included = set(re.findall(r'":(\w+)"', (ANDROID / "settings.gradle.kts").read_text()))
    assert included == poms() - {"host"}, "host stands in for what Google's repository has"


@pytest.mark.parametrize("name", ["kotlin", "coroutines", "junit"])
def test_both_builds_have_the_same_version_of(name: str) -> None:
    assert catalog()[name] == properties()[f"{name}.version"]


def test_the_engines_versions_are_those_that_the_adapters_name() -> None:
    assert catalog()["litert"] == adapter_version("litert", "LiteRtEngine.kt")
    assert catalog()["executorch"] == adapter_version("executorch", "ExecuTorchEngine.kt")


def test_both_builds_take_the_same_folders() -> None:
    pom = (ANDROID / "pom.xml").read_text()
    assert "<sourceDirectory>src/main/kotlin</sourceDirectory>" in pom
    for module in poms() - {"host"}:
        languages = [name for name in ("java", "kotlin") if (ANDROID / module / "src/main" / name).exists()]
        assert languages == ["kotlin"]
        assert "kotlin.srcDir" not in gradle(module) and "java.srcDir" not in gradle(module)
        assert "sourceDirectory" not in (ANDROID / module / "pom.xml").read_text()


def test_both_builds_target_the_same_androids() -> None:
    link = (ANDROID / "app/link.sh").read_text()
    assert f'minSdkVersion="{catalog()["minSdk"]}"' in link
    assert f'targetSdkVersion="{catalog()["compileSdk"]}"' in link
    assert (
        properties()["android-compiled.version"].startswith("16-") and catalog()["compileSdk"] == "36"
    )  # Android 16 is API 36


def test_both_builds_name_the_app_alike() -> None:
    assert 'namespace = "io.pocketbert.app"' in gradle("app")
    assert 'package=\\"io.pocketbert.app\\"' in (ANDROID / "app/link.sh").read_text()


def test_every_alias_is_in_the_catalog() -> None:
    known = {name.replace("-", ".") for name in re.findall(r"^([\w-]+) = ", CATALOG, re.MULTILINE)}
    for script in ANDROID.glob("**/*.gradle.kts"):
        for alias in re.findall(
            r"libs\.(?:plugins\.|versions\.)?([a-zA-Z.]+?)(?:\.get\(\).*)?[)\n]", script.read_text()
        ):
            assert alias in known, f"{script.name}: {alias}"


def test_the_app_asks_for_no_permission() -> None:
    for manifest in ANDROID.glob("*/src/main/AndroidManifest.xml"):
        assert "uses-permission" not in manifest.read_text()


def strings(language: str) -> dict[str, set[str]]:
    """Name -> the placeholders of a string, in all its quantities."""
    root = ElementTree.parse(APP / f"res/values{language}/strings.xml").getroot()
    return {entry.get("name", ""): set(re.findall(r"%\d\$s", "".join(entry.itertext()))) for entry in root}


def test_every_string_is_translated_with_its_placeholders() -> None:
    assert strings("-ar") == strings("")


def test_the_readmes_ten_lines_are_run_by_a_test() -> None:
    snippet = (ANDROID / "README.md").read_text().partition("```kotlin\n")[2].partition("```")[0]
    assert len([line for line in snippet.splitlines() if line]) == 9
    assert snippet in (ANDROID / "app/src/test/kotlin/io/pocketbert/app/YourOwnAppTest.kt").read_text()
