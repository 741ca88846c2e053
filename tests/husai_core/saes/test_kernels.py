"""Every implementation of the kernels does what the one in torch for the CPU does.

The Triton kernels are tested where TRITON_INTERPRET=1 asks for it (`make test-triton`).
"""

import os
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from husai_core.errors import UserError
from husai_core.saes import kernels as package
from husai_core.saes.codes import recall
from husai_core.saes.kernels import Kernels, choose, cpp, torch_int8
from husai_core.saes.kernels.torch_cpu import TorchCPU, expand
from husai_core.saes.kernels.torch_cuda import TorchCUDA
from husai_core.saes.kernels.torch_int8 import TorchInt8, multiplies_bytes

INTERPRETED = "TRITON_INTERPRET" in os.environ
S, B, D = 3, 12 if INTERPRETED else 300, 24
OTHERS: list[Any] = [pytest.param(TorchCUDA, id="cuda")]
if multiplies_bytes():
    OTHERS.append(pytest.param(TorchInt8, id="int8"))
if cpp.build():
    OTHERS.append(pytest.param(cpp.build, id="cpp"))
if INTERPRETED:
    from husai_core.saes.kernels.triton import Triton

    OTHERS.append(pytest.param(Triton, id="triton"))


@pytest.fixture(params=OTHERS)
def other(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kernels:
    monkeypatch.setattr(torch_int8, "WEIGHTS", 0)
    monkeypatch.setattr(torch_int8, "BATCH", 0)
    monkeypatch.setattr(torch_int8, "CHOICE", torch_int8.WIDEST)
    kernels: Kernels = request.param()
    return kernels


def drawn(n: int, shared: bool) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(n)
    return torch.randn(1 if shared else S, B, D), torch.randn(S, n, D), torch.randn(S, n)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("n", "k"), [(48, 4), (97, 5), (512, 8), (2048, 16), (4096, 1)])
def test_selection(other: Kernels, n: int, k: int, shared: bool) -> None:
    x, encoder, bias = drawn(n, shared)
    values, latents = other.top(x, encoder, bias, k)
    wanted, places = TorchCPU().top(x, encoder, bias, k)
    torch.testing.assert_close(values.sort(-1).values, wanted.sort(-1).values)
    assert torch.equal(latents.sort(-1).values, places.sort(-1).values)


def test_integers_miss_none_of_the_largest(other: Kernels) -> None:
    """Rows and latents that integers represent badly: a few large entries among small ones, and zeros."""
    torch.manual_seed(0)
    count = 20 if INTERPRETED else 2000
    x, encoder = torch.randn(1, count, 40), torch.randn(1, 4096, 40)
    x[..., 3] *= 60
    x[0, 5], encoder[0, 7] = 0.0, 0.0
    encoder[0, ::2, 3] *= 0.01
    _, latents = other.top(x, encoder, torch.zeros(1, 4096), 32)
    _, places = TorchCPU().top(x, encoder, torch.zeros(1, 4096), 32)
    selected, expected = latents[0].sort(-1).values, places[0].sort(-1).values
    rows = [row for row in range(count) if row != 5]
    assert torch.equal(selected[rows], expected[rows])


def test_rounding_alike_everywhere_hides_nothing(other: Kernels) -> None:
    """Rows of two values, and latents that share a direction: undithered, all rounding errors would have one sign."""
    torch.manual_seed(0)
    x = (torch.rand(1, 20 if INTERPRETED else 500, 768) < 0.02).float() - 0.02
    shared = torch.tensor([0.6, -0.6, 0.0, 0.0]).repeat(1024)[None, :, None]
    encoder = torch.nn.functional.normalize(torch.randn(1, 4096, 768) + shared, dim=-1)
    assert recall(x, encoder, torch.zeros(1, 4096), 16, other) == 1.0


def test_outliers_hide_nothing(other: Kernels) -> None:
    """A huge entry leaves the others too few integers, and they decide here; the same holds for a latent."""
    torch.manual_seed(0)
    x = torch.randn(1, 16, 768).sign()
    x[..., 0] = 157.0
    encoder = torch.nn.functional.normalize(torch.randn(1, 1024, 768), dim=-1)
    encoder[..., 0] = 0.0
    encoder[0, :16, 1:] = x[0, :, 1:] / 767**0.5
    encoder[0, 500] = 0.01
    encoder[0, 500, 5] = 1.0
    selected, expected = (kernels.top(x, encoder, torch.zeros(1, 1024), 8)[1] for kernels in (other, TorchCPU()))
    assert torch.equal(selected.sort(-1).values, expected.sort(-1).values)


def test_a_diverged_member_leaves_the_others_alone(other: Kernels) -> None:
    x, encoder, bias = drawn(512, True)
    encoder[1, 0, 0] = torch.nan
    values, latents = other.top(x, encoder, bias, 3)
    encoder[1] = 0.0
    wanted, places = TorchCPU().top(x, encoder, bias, 3)
    torch.testing.assert_close(values[::2].sort(-1).values, wanted[::2].sort(-1).values)
    assert torch.equal(latents[::2].sort(-1).values, places[::2].sort(-1).values)


@pytest.mark.parametrize(
    ("scale", "bias", "b", "d"),
    [
        (0.0, 0.1, 300, 32),
        (0.0, -1e6, 40, 32),
        (1e-21, 0.0, 40, 32),
        (1.0, 1e6, 40, 32),
        (1.0, 0.1, 40, 1),
        (1.0, 0.1, 1, 8),
    ],
    ids=["zeros", "zeros under huge biases", "tiny", "huge biases", "one column", "one row in column order"],
)
def test_rows_that_integers_cannot_rank_are_searched_in_fp32(
    other: Kernels, scale: float, bias: float, b: int, d: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_int8, "TILE", 1 << 15)
    torch.manual_seed(0)
    x = scale * torch.randn(1, d, b).transpose(1, 2)
    x = x if b == 1 else x.contiguous()
    encoder, biases = torch.randn(1, 512, d), bias * (1 + torch.rand(1, 512))
    values, _ = other.top(x, encoder, biases, 8)
    wanted, _ = TorchCPU().top(x, encoder, biases, 8)
    torch.testing.assert_close(
        values.sort(-1).values, wanted.sort(-1).values, rtol=1e-6, atol=0.0 if scale < 1 else 1e-5
    )


@pytest.mark.skipif(not multiplies_bytes(), reason="this processor multiplies no bytes")
def test_integers_show_most_rows_to_be_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the others are searched a second time."""
    torch.manual_seed(0)
    x, encoder = torch.randn(600, 256), torch.nn.functional.normalize(torch.randn(4096, 256), dim=-1)
    monkeypatch.setattr(torch_int8, "TILE", 1 << 20)
    values, latents = torch.empty(600, 16), torch.empty(600, 16, dtype=torch.int32)
    sure = TorchInt8()._search(x, encoder, torch.zeros(4096), values, latents)
    assert sure.float().mean() > 0.9
    assert torch.equal(latents[sure].sort(-1).values, (x @ encoder.T).topk(16).indices[sure].sort(-1).values.int())


@pytest.mark.parametrize("other", [param for param in OTHERS if param.id not in ("cuda", "int8")], indirect=True)
def test_selection_takes_the_first_of_equal_entries(other: Kernels) -> None:
    x, encoder, bias = torch.zeros(1, 5, D), torch.randn(1, 64, D), torch.zeros(1, 64)
    _, latents = other.top(x, encoder, bias, 3)
    assert latents.sort(-1).values.tolist() == [[[0, 1, 2]] * 5]


def test_rows_that_are_not_numbers_stay_visible(other: Kernels) -> None:
    x, encoder, bias = drawn(64, True)
    x[0, 7] = torch.nan
    values, latents = other.top(x, encoder, bias, 3)
    assert values[:, 7].isnan().all()
    assert latents.min() >= 0
    assert latents.max() < S * 64


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("n", [48, 97, 2048])
def test_search_above_a_threshold(other: Kernels, n: int, shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("husai_core.saes.kernels.torch_cpu.MOST_ROWS", 77)
    x, encoder, bias = drawn(n, shared)
    threshold = torch.tensor([3.0, 100.0, 0.0])
    expected = TorchCPU().above(x, encoder, bias, threshold)
    for tensor, wanted in zip(other.above(x, encoder, bias, threshold), expected, strict=True):
        assert torch.equal(tensor, wanted)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("count", [1, 7, 40 * B])
def test_the_largest_of_a_batch(other: Kernels, count: int, known: bool) -> None:
    """The members have more, fewer and none of the `count` positive entries; a guess may be far too high."""
    x, encoder, bias = drawn(97, True)
    bias[1] -= 9.0
    bias[2] -= 1e3
    guess = torch.tensor([100.0, 0.0, 2.0]) if known else None
    z = (x @ encoder.transpose(1, 2) + bias[:, None]).relu()
    least = z.flatten(1).topk(count).values[:, -1, None, None]
    wanted = z * (z >= least)
    values, latents, starts, smallest = other.batch_top(x, encoder, bias, count, guess)
    places = expand(starts, len(latents)).long() // B * 97 * B + expand(starts, len(latents)).long() % B * 97
    assert bool((latents.diff()[places.diff() == 0] > 0).all())
    selected = torch.zeros(S * B * 97).index_put_((places + latents.long() % 97,), values.relu()).view(S, B, 97)
    torch.testing.assert_close(selected, wanted)
    positive = wanted.masked_fill(wanted == 0, torch.inf).amin((1, 2))
    torch.testing.assert_close(smallest.float(), positive.masked_fill(positive == torch.inf, 0.0))


def test_sums(other: Kernels) -> None:
    reference, n = TorchCPU(), 97
    x, encoder, bias = drawn(n, False)
    values, latents, starts = reference.above(x, encoder, bias, torch.tensor([3.0, 4.0, 100.0]))
    dictionary, rows = encoder.flatten(0, 1), torch.randn(S * B, D)
    torch.testing.assert_close(
        other.decode(values, latents, starts, dictionary), reference.decode(values, latents, starts, dictionary)
    )
    row_of = expand(starts, len(latents))
    torch.testing.assert_close(
        other.dots(rows, row_of, latents, starts, dictionary), reference.dots(rows, row_of, latents, starts, dictionary)
    )
    order, begins = reference.transpose(latents, S * n)
    assert all(map(torch.equal, other.transpose(latents, S * n), (order, begins)))
    some = slice(90, 131) if other.block <= reference.block else slice(None)
    cut = (values[order], row_of[order], begins[some], rows)
    torch.testing.assert_close(other.outer(*cut), reference.outer(*cut))


@pytest.mark.parametrize("unit", [False, True])
def test_optimiser(other: Kernels, unit: bool) -> None:
    start = torch.nn.functional.normalize(torch.randn(50, D), dim=-1)
    reference = torch.nn.Parameter(start.clone())
    adam = torch.optim.Adam([reference], lr=0.01)
    states = [(start.clone(), (torch.zeros(50, D), torch.zeros(50, D))) for _ in range(2)]
    for step in range(1, 6):
        gradient = torch.randn(50, D)
        for kernels, (weights, moments) in zip((TorchCPU(), other), states, strict=True):
            kernels.adam(weights, gradient.clone(), moments, 0.01, step, unit)
        with torch.no_grad():
            along = (gradient * reference).sum(-1, keepdim=True) if unit else 0.0
            reference.grad = gradient - along * reference
            adam.step()
            if unit:
                reference /= reference.norm(dim=-1, keepdim=True)
    for weights, _ in states:
        torch.testing.assert_close(weights, reference.detach(), rtol=1e-5, atol=1e-6)


def test_a_library_that_others_may_have_written_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a damaged one: both are built again."""
    built = cpp.build()
    if built is None:
        return
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    name = f"{built.name.replace('cpp', 'kernels')}.so"
    (tmp_path / "husai").mkdir(mode=0o700)
    (tmp_path / "husai" / name).write_text("half")
    cpp.build.cache_clear()
    again = cpp.build()
    assert again is not None
    assert (tmp_path / "husai" / name).stat().st_size > 10_000
    (tmp_path / "husai").chmod(0o777)
    (tmp_path / "husai" / name).unlink()  # written over, the loaded library would end this process with a bus error
    (tmp_path / "husai" / name).write_text("planted")
    cpp.build.cache_clear()
    assert cpp.build() is not None
    assert (tmp_path / "husai" / name).read_text() == "planted"
    cpp.build.cache_clear()


def test_the_setting_is_one_of_two_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUSAI_KERNELS", "tensor")
    with pytest.raises(UserError, match="auto or torch"):
        choose("cpu")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder where programs are found, on a machine that seems to have Triton and a GPU."""
    (tmp_path / "triton.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "husai_core.saes.kernels.triton", SimpleNamespace(Triton=TritonStandIn))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(package, "KERNELS_USED", set())
    monkeypatch.setattr(package, "_triton", cache(package._triton.__wrapped__))
    return tmp_path


class TritonStandIn(TorchCPU):
    name = "triton"


def program(path: Path) -> str:
    path.touch(mode=0o755)
    return str(path)


@pytest.mark.parametrize("name", ["gcc", "clang"])
def test_triton_is_chosen_where_it_finds_a_c_compiler(programs: Path, name: str) -> None:
    program(programs / name)
    assert choose("cuda").name == "triton"
    assert sorted(package.KERNELS_USED) == ["triton"]


def test_triton_takes_the_compiler_that_cc_names(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", program(programs / "mycc"))
    assert choose("cuda").name == "triton"


@pytest.mark.parametrize("named", [None, "", "nowhere/cc"])
def test_without_a_c_compiler_torch_runs_on_cuda(
    programs: Path, named: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Triton asks `CC` alone if it is set; there is one warning, however often kernels are chosen."""
    if named is not None:
        monkeypatch.setenv("CC", named)
        program(programs / "gcc")
    assert {choose("cuda").name for _ in range(3)} == {"torch-cuda"}
    assert [(record.name, record.levelname) for record in caplog.records] == [("husai.kernels", "WARNING")]
    assert "no C compiler" in caplog.text
