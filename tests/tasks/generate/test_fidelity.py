"""FID and KID against closed forms, over features of our own; and where there is nothing to measure with."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from jiio.checks import ArgumentError
from jiio.tasks.cli import main
from jiio.tasks.frame.files import InputError
from jiio.tasks.generate import fidelity as module
from jiio.tasks.generate.fidelity import Inception, fidelity, has_fidelity

needed = pytest.mark.skipif(not has_fidelity(), reason="needs the extra: pip install jiio[fidelity]")


def flat(images: Tensor) -> Tensor:
    """The pixels themselves."""
    return images.flatten(1)


def gaussian(count: int, mean: Tensor, covariance: Tensor, seed: int) -> Tensor:
    """(count, 1, 1, n) whose own mean and covariance are exactly these."""
    x = torch.randn(count, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov()), x.T, upper=False).T
    return (mean + white @ torch.linalg.cholesky(covariance).T)[:, None, None, :]


@needed
def test_the_frechet_distance_of_two_gaussians():
    """Commuting covariances: |m1 - m2|^2 + sum (s1 - s2)^2 over the common axes."""
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    m1, m2 = torch.tensor([[0.1, 0.4, -0.3], [0.5, 0.2, 0.0]], dtype=torch.float64)
    s1, s2 = torch.tensor([[1.0, 0.5, 2.0], [0.3, 0.7, 1.0]], dtype=torch.float64)
    a = gaussian(50, m1, turn @ torch.diag(s1.square()) @ turn.T, 1)
    b = gaussian(70, m2, turn @ torch.diag(s2.square()) @ turn.T, 2)
    expected = float((m1 - m2).square().sum() + (s1 - s2).square().sum())
    assert fidelity(a, b, flat)["FID"] == pytest.approx(expected, rel=1e-8)
    assert fidelity(a, a, flat)["FID"] == pytest.approx(0.0, abs=1e-6)


@needed
@pytest.mark.parametrize("sizes", [(30, 30), (25, 40)])
def test_the_kernel_distance_is_the_unbiased_one(sizes):
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, 1, 1, 4, generator=draw, dtype=torch.float64) for n in sizes)
    b = b + 0.5
    found = fidelity(a, b, flat)["KID"]
    kernel = lambda x, y: (x[:, 0, 0] @ y[:, 0, 0].T / 4 + 1) ** 3  # noqa: E731
    inside = [(k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in (kernel(a, a), kernel(b, b))]
    expected = float(inside[0] + inside[1] - 2 * kernel(a, b).mean())
    assert found == pytest.approx(expected, rel=1e-9 if sizes[0] == sizes[1] else 0.2)  # else over random subsets


@needed
def test_the_kernel_distance_of_two_gaussians():
    """E (a b / n + 1)^3 over independent normal a, b, from their moments; two features that are the same count once."""
    count, mean, spread = 1000, 1.0, 0.5
    draw = torch.Generator().manual_seed(0)
    a = torch.randn(count, 1, 1, 1, generator=draw, dtype=torch.float64)
    b = mean + spread * torch.randn(count, 1, 1, 1, generator=draw, dtype=torch.float64)
    moments = [(0.0, 1.0, 0.0), (mean, mean**2 + spread**2, mean**3 + 3 * mean * spread**2)]
    expected = sum(math.comb(3, j + 1) * (moments[0][j] - moments[1][j]) ** 2 for j in range(3))
    found = fidelity(a, b, lambda images: images.flatten(1).expand(-1, 2))
    assert found["KID"] == pytest.approx(expected, rel=0.2)
    assert abs(fidelity(a, -a.flip(0), lambda images: images.flatten(1).expand(-1, 2))["KID"]) < 0.1


@needed
def test_features_come_in_parts_and_from_float32(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 3)
    seen = []
    a, b = torch.rand(7, 1, 2, 2), torch.rand(5, 1, 2, 2)

    def features(images: Tensor) -> Tensor:
        seen.append(len(images))
        return images.flatten(1)

    found = fidelity(a, b, features)
    assert seen == [3, 3, 1, 3, 2]
    monkeypatch.setattr(module, "CHUNK", 64)
    assert fidelity(a.double(), b.double(), flat) == pytest.approx(found)


@needed
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_the_inception_network_gives_the_figures_of_the_library(tmp_path, monkeypatch):
    """With random weights, as the real ones are a download: the library's own command for the same images."""
    library = pytest.importorskip("torch_fidelity")
    network = library.FeatureExtractorInceptionV3
    torch.manual_seed(0)
    with monkeypatch.context() as patch:
        patch.setattr(network, "load_state_dict", lambda self, weights: None)
        torch.save({}, tmp_path / "none.pth")
        made = Inception(tmp_path / "none.pth")
    for weight in made.network.parameters():
        if weight.dim() > 1:
            torch.nn.init.kaiming_normal_(weight)  # else nothing of the image arrives
    torch.save(made.network.state_dict(), tmp_path / "weights.pth")
    a, b = torch.rand(3, 1, 9, 9), torch.rand(3, 1, 9, 9)
    found = fidelity(a, b, Inception(tmp_path / "weights.pth"))
    bytes_of = lambda t: [(255 * image).round().to(torch.uint8).expand(3, -1, -1) for image in t]  # noqa: E731
    expected = library.calculate_metrics(
        input1=Listed(bytes_of(a)),
        input2=Listed(bytes_of(b)),
        cuda=False,
        fid=True,
        kid=True,
        kid_subset_size=3,
        verbose=False,
        feature_extractor_weights_path=str(tmp_path / "weights.pth"),
    )
    assert found["FID"] == pytest.approx(expected["frechet_inception_distance"], rel=1e-3)
    assert found["KID"] == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-3)
    assert abs(found["KID"]) > 1e-9 < found["FID"]


class Listed(torch.utils.data.Dataset):
    def __init__(self, images: list[Tensor]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


@needed
@pytest.mark.parametrize(
    "features, words",
    [
        (lambda images: images, "features"),
        (lambda images: images.flatten(1)[:, :1], "more than one"),
        (lambda images: images.flatten(1)[1:], "callable"),
        (lambda images: images.flatten(1) / 0, "finite"),
    ],
    ids=["not flat", "one", "too few", "infinite"],
)
def test_unusable_features_get_a_sentence(features, words):
    with pytest.raises(ArgumentError, match=words):
        fidelity(torch.rand(3, 1, 2, 2), torch.rand(3, 1, 2, 2), features)


def test_sets_of_different_images_cannot_be_compared():
    with pytest.raises(ArgumentError, match="samples"):
        fidelity(torch.rand(3, 1, 2, 2), torch.rand(3, 1, 2, 3), flat)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(module, "has_fidelity", lambda: False)
    for call in (
        lambda: fidelity(torch.rand(3, 1, 2, 2), torch.rand(3, 1, 2, 2), flat),
        lambda: Inception(Path("weights.pth")),
    ):
        with pytest.raises(InputError, match=r"jiio\[fidelity\].*jiio.tasks.generate.samples"):
            call()


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "other weights", "code"])
def test_a_file_that_holds_no_inception_weights(kind, tmp_path, monkeypatch):
    """The network is not reached: what runs code when it is read, or is not there, ends before."""
    path = tmp_path / "weights.pth"
    if kind != "missing":
        path.write_bytes(b"" if kind == "empty" else b"hello")
    if kind == "other weights":
        torch.save({"weight": torch.zeros(2)}, path)
    if kind == "code":
        torch.save(Runs(tmp_path / "ran"), path)

    class Network(ModuleType):
        @staticmethod
        def FeatureExtractorInceptionV3(name, features, feature_extractor_weights_path):
            raise RuntimeError("Missing keys in state_dict")

    if not has_fidelity():
        monkeypatch.setattr(module, "part_of_library", lambda name: Network(name))
    with pytest.raises(InputError, match=r"sampling\.features: expected the weights of torch-fidelity's Inception"):
        Inception(path, "sampling.features")
    assert not (tmp_path / "ran").exists()


class Runs:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_evaluate_takes_the_weights_of_the_features(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("g.yaml").write_text(
        "task: generate\nsteps: 1\ndata: {size: 12, batch_size: 4}\nsampling: {codes: 10, samples: 5}\n"
        "model: {cell: {name: Dense, options: {features: 8}}, latent: 3}\n"
    )
    assert main(["train", "g.yaml", "--output", "run"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "run", "--sampling.features", "none.pth"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and ("none.pth" in said or "jiio[fidelity]" in said)
    monkeypatch.setattr(
        "jiio.tasks.generate.task.Inception", lambda path, argument: lambda images: images.flatten(1)[:, :3]
    )
    seen = []
    monkeypatch.setattr(
        "jiio.tasks.generate.task.fidelity", lambda a, b, features: seen.append(features(a)) or {"FID": 3.0}
    )
    assert main(["evaluate", "run", "--sampling.features", "some.pth"]) == 0
    assert "FID" in capsys.readouterr().err and [f.shape for f in seen] == [(5, 3), (5, 3)]
    capsys.readouterr()
    assert main(["evaluate", "run", "--features", "some.pth"]) == 2
    assert "did you mean --sampling.features?" in capsys.readouterr().err
