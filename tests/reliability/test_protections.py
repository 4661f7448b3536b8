"""Every protection that `tools/protections.py` takes out is still there to be taken out."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

from support.paths import ROOT, TOOLS


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("protections", TOOLS / "protections.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["protections"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_protection_can_be_taken_out_and_names_tests_that_exist(tmp_path: Path) -> None:
    for protection in load().PROTECTIONS:
        copy = tmp_path / protection.module
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "honcho_exec" / protection.module, copy)
        before = copy.read_text(encoding="utf-8")
        protection.take_out(tmp_path)
        after = copy.read_text(encoding="utf-8")
        assert after != before
        compile(after, copy, "exec")
        for test in protection.tests:
            path, _, name = test.partition("::")
            source = (ROOT / path).read_text(encoding="utf-8")
            assert re.search(rf"(def {name}\(|^{name} = )", source, re.MULTILINE) if name else source
