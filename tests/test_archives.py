"""Archives that claim what they do not hold."""

import io
import zipfile

import numpy as np
import pytest

from spp_jax.runs import archives, memory


def _header(shape, dtype="<f4"):
    f = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        f, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return f.getvalue()


def _archive(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def test_all_and_named_arrays(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, a=np.arange(6).reshape(2, 3), b=np.array("text"), c=np.zeros(0))
    arrays = archives.read_npz(str(path))
    assert arrays["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (str(arrays["b"]), arrays["c"].shape) == ("text", (0,))
    assert list(archives.read_npz(str(path), ("a", "none"))) == ["a"]


def test_rows_that_are_not_there(tmp_path):
    path = str(tmp_path / "x.npz")
    _archive(path, windows=_header((10**12, 4)) + b"\0" * 64)
    with pytest.raises(ValueError, match=r"an array claims 16,000,000,000,128 bytes, and has 192"):
        archives.read_npz(path)


def test_an_archive_larger_than_memory(tmp_path, monkeypatch):
    path = str(tmp_path / "x.npz")
    np.savez_compressed(path, a=np.zeros(1000, np.float32))
    monkeypatch.setattr(memory.os, "sysconf", lambda name: 30)
    with pytest.raises(ValueError, match="it claims 0 GiB, and this machine has 0"):
        archives.read_npz(path)


@pytest.mark.parametrize("damage", [b"\0", b"\xff", b"(", b"'"])
def test_headers_damaged_anywhere_are_values_that_are_wrong(damage):
    file = io.BytesIO()
    windows = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.save(file, windows)
    whole = file.getvalue()
    for at in range(128):
        data = whole[:at] + damage + whole[at + 1 :]
        try:
            array = archives.read_npy(io.BytesIO(data), len(data))
        except ValueError:
            continue
        assert array.tolist() == windows.tolist()


def test_python_objects_are_not_made(tmp_path):
    path = str(tmp_path / "x.npz")
    np.savez(path, a=np.array([{"any": "thing"}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"Object arrays cannot be loaded"):
        archives.read_npz(path)


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive"])
def test_other_files(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ValueError, match="File is not a zip file"):
        archives.read_npz(str(tmp_path / "x.npz"))


def test_a_list_of_arrays_beyond_the_limit(tmp_path, monkeypatch):
    path = str(tmp_path / "x.npz")
    _archive(path, **{f"a{i}": b"" for i in range(100)})
    monkeypatch.setattr(archives, "MAX_LIST", 1000)
    with pytest.raises(ValueError, match=r"a part of it claims [\d,]+ bytes, more than 1,000"):
        archives.read_npz(path)


@pytest.mark.parametrize("dtype", ["|S0", "|V0"])
def test_values_of_no_bytes(tmp_path, dtype):
    path = str(tmp_path / "x.npz")
    _archive(path, windows=_header((10**12, 4), dtype))
    with pytest.raises(ValueError, match="an array claims 4,000,000,000,000 values of no bytes"):
        archives.read_npz(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", method) as archive:
        archive.writestr("a.npy", _header((1,)) + bytes(4))
    with pytest.raises(ValueError, match=r"a\.npy is compressed by no method that numpy writes"):
        archives.read_npz(str(tmp_path / "x.npz"))
