"""Many pairs: the same as one by one, every face observed once, memory bounded, nothing left on disk."""

from __future__ import annotations

import errno
from collections import Counter

import pytest
import torch
from nets import shaken
from pair_methods import METHODS, Small, faces

from facexai import FGGB, CorrRISE, FaceModel, InputSpec, PairCAM, explain_pairs
from facexai.explainers._cache import EvidenceCache

pytestmark = pytest.mark.filterwarnings("ignore:a map of pair .* has one sign")
PAIRS = [(0, 1), (4, 2), (0, 2), (3, 3), (1, 4), (0, 1)]


@pytest.fixture
def model():
    torch.manual_seed(4)
    return FaceModel(shaken(Small()).double(), InputSpec(20))


@pytest.mark.filterwarnings("ignore:.*is rounding noise")  # of identical faces
@pytest.mark.parametrize("memory", [0, 40_000, 2**30])
@pytest.mark.parametrize("name", METHODS)
def test_it_is_one_pair_after_the_other(model, name, memory, tmp_path):
    images, explainer = faces(model, 5), METHODS[name](model)
    found = list(explain_pairs(explainer, images, PAIRS, memory=memory, folder=tmp_path, batch_size=2))
    assert len(found) == len(PAIRS)
    for why, (i, j) in zip(found, PAIRS, strict=True):
        alone = explainer(images[i : i + 1], images[j : j + 1])
        torch.testing.assert_close(why.cells, alone.cells, rtol=1e-5, atol=1e-7)
        assert torch.equal(why.images, torch.stack([images[i : i + 1], images[j : j + 1]], 1))
    assert not list(tmp_path.iterdir())


def test_every_face_is_observed_once_and_memory_is_bounded(model, monkeypatch, tmp_path):
    images, seen, most = faces(model, 5), Counter(), []
    explainer = CorrRISE(model, count=20)
    original, put = CorrRISE.observe, EvidenceCache.put

    def observe(self, some):
        seen.update(int((images == one).flatten(1).all(1).nonzero()) for one in some)
        return original(self, some)

    def watched(self, number, evidence):
        put(self, number, evidence)
        most.append((self.bytes, sum(e.nbytes for e in self.held.values()), len(list(tmp_path.rglob("*.safetensors")))))

    monkeypatch.setattr(CorrRISE, "observe", observe)
    monkeypatch.setattr(EvidenceCache, "put", watched)
    one = explainer.observe(images[:1]).nbytes
    seen.clear()
    list(explain_pairs(explainer, images, PAIRS * 30, memory=2 * one, folder=tmp_path))
    assert seen == Counter(range(5))
    assert all(said == held <= 2 * one for said, held, _ in most)
    assert max(files for *_, files in most) <= 5


def test_images_may_be_loaded_when_asked_and_pairs_be_endless(model):
    from itertools import count

    class Lazy(list):
        pass

    images = Lazy(faces(model, 5))
    stream = explain_pairs(PairCAM(model), images, ((k % 5, (k + 1) % 5) for k in count()))
    assert len([next(stream) for _ in range(3)]) == 3
    stream.close()


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(model, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("facexai._tensor_store.write_whole", full)
    with pytest.raises(OSError, match=r"No space left on device\); name a larger one with folder="):
        list(explain_pairs(FGGB(model, 0.2), faces(model, 5), PAIRS, memory=0, folder=tmp_path))
    assert not list(tmp_path.iterdir())


def test_bad_pairs(model):
    with pytest.raises(ValueError, match=r"pairs of the 5 images, got \(0, 5\)"):
        list(explain_pairs(PairCAM(model), faces(model, 5), [(0, 5)]))
    with pytest.raises(ValueError, match="batch_size of at least 1"):
        explain_pairs(PairCAM(model), faces(model, 5), [], batch_size=0)


def test_pairs_may_be_rows_of_a_tensor_and_memory_that_suffices_needs_no_disk(model, monkeypatch):
    monkeypatch.setattr(EvidenceCache, "_write", None)  # would be needed for the disk
    explainer = CorrRISE(model, count=20)
    one = explainer.observe(faces(model, 1)).nbytes
    chain = torch.tensor([(k, k + 1) for k in range(0, 4, 2)])
    assert len(list(explain_pairs(explainer, faces(model, 4), chain, memory=4 * one))) == 2


def test_what_goes_to_disk_leaves_the_memory_and_what_does_not_fit_is_forgotten(model, tmp_path):
    from facexai._tensor_store import Store

    explainer = CorrRISE(model, count=20)
    evidence = [explainer.observe(face[None]) for face in faces(model, 5)]
    each = evidence[0].nbytes
    kept = EvidenceCache(each, Store(tmp_path), disk=2 * each)
    for number, one in enumerate(evidence):
        kept.put(number, one)
    assert [number in kept for number in range(5)] == [True, True, False, False, True]
    assert all(part.untyped_storage().nbytes() == 0 for one in kept.away.values() for part in one.parts.values())
    again = kept.get(1)
    assert all(torch.equal(again.parts[name], part) for name, part in evidence[1].parts.items())
