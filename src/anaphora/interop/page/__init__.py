"""A language model as a web page: one file, with the model in it as WebAssembly."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from anaphora.artifact.files import atomic_write
from anaphora.data import CharacterTokenizer
from anaphora.generation.reading import opening
from anaphora.interop import Exported
from anaphora.interop.c.source import Source, source_of
from anaphora.interop.network import network_of
from anaphora.models import LanguageModel

__all__ = ["export"]

_NAME = "model"  # of all C functions
_FUNCTIONS = ("reset", "step", "softmax", "sample")
_STACK = 1 << 16  # bytes of the stack, below which the model's numbers are


def export(model: Any, path: Path) -> Exported:
    """Write a language model of characters as PATH, a page on which it writes in the browser.

    The page is one file that needs no server and asks for no other: the model's C code, compiled
    to WebAssembly, is in it. It shows the probabilities of the next character while you type, and
    colors the text by a unit. A model that computes with int8 weights has these in the page, at
    about 1.5 bytes a weight.

    Args:
        model: A language model with its `CharacterTokenizer` as ``model.codec``.
        path: The file.

    Raises:
        ValueError: the model cannot be exported, or reads other tokens than characters.
        ImportError: there is no compiler for WebAssembly.
        ArtifactError: the file cannot be written.

    >>> import tempfile
    >>> from anaphora.nn import GRU
    >>> export(GRU(input_size=3, hidden_size=4), Path("page.html"))
    Traceback (most recent call last):
    ValueError: a page is for language models, not for GRU: ...
    """
    if not isinstance(model, LanguageModel):
        raise ValueError(
            f"a page is for language models, not for {type(model).__name__}: "
            "export it as .c or .onnx"
        )
    if not isinstance(model.codec, CharacterTokenizer):
        raise ValueError(
            "a page reads what is typed character by character, and this model reads other tokens: "
            "train one with --level char, or export it as .c or .onnx"
        )
    network = network_of(model)
    source = source_of(network, _NAME)
    wasm = compiled(source)
    weights = "int8" if network.int8 else "float32"
    layer = network.layers[0]
    facts = {
        "model": f"{layer.cell.name.upper()}, {len(network.layers)} x {layer.sizes[1]} units, "
        f"{source.products:,} multiply-adds per character, weights in {weights}",
        "characters": list(model.codec.characters),
        "unknown": model.codec.unknown_id,
        "opening": opening(model.codec),
        "states": source.states,
    }
    page = page_of(wasm, facts).encode()
    atomic_write(path, page)
    lines = [
        f"wrote {path}: {len(page):,} bytes, of which {len(wasm):,} (before base64) are the model "
        f"as WebAssembly, weights in {weights}",
        "open it in a browser; it needs no server",
    ]
    record = {
        "out": str(path),
        "format": "page",
        "weights": weights,
        "bytes": len(page),
        "wasm_bytes": len(wasm),
    }
    return Exported(lines, record)


def page_of(wasm: bytes, facts: dict[str, Any]) -> str:
    """The page of a compiled model, and of what the page says and knows of it.

    >>> page = page_of(b"(wasm)", {"model": "</script>", "characters": ["a"]})
    >>> page.count("</script>"), "KHdhc20p" in page
    (3, True)
    """
    template = Path(__file__).with_name("page.html").read_text("utf-8")
    plain = json.dumps(facts).replace("<", "\\u003c")  # so that no text ends the script
    return template.replace("FACTS", plain, 1).replace("WASM", base64.b64encode(wasm).decode(), 1)


def compiled(source: Source) -> bytes:
    """The WebAssembly of a model in C.

    Raises:
        ImportError: there is no compiler for it.
        ValueError: the compiler fails; the message has what it printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        code, out = Path(folder, f"{_NAME}.c"), Path(folder, f"{_NAME}.wasm")
        code.write_text(source.code, "utf-8")
        code.with_suffix(".h").write_text(source.header, "utf-8")
        command = [
            *_compiler(), "-O2", "-msimd128", "-mbulk-memory", "-ffreestanding", "-nostdlib",
            "-Wl,--no-entry", "-Wl,--strip-all", "-Wl,-z,stack-size=" + str(_STACK),
            "-Wl,--export=__heap_base", *(f"-Wl,--export={_NAME}_{f}" for f in _FUNCTIONS),
            str(code), "-o", str(out),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        if done.returncode != 0:
            raise ValueError(f"{command[0]} cannot compile the model: {done.stderr.strip()[:2000]}")
        return out.read_bytes()


def _compiler() -> list[str]:
    """The command of a C compiler for WebAssembly."""
    if shutil.which("clang") and shutil.which("wasm-ld"):
        return ["clang", "--target=wasm32"]
    raise ImportError(
        "a page needs a compiler for WebAssembly, clang and wasm-ld, of LLVM 14 or later: install "
        "them, such as with: apt install clang lld"
    )
