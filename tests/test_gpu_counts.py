"""What is counted of a program for GPUs, on a program written by hand; and programs themselves."""

import json
import pathlib
import subprocess
import sys

import pytest

from benchmarks.gpu import counts, devices, hlo

ROOT = pathlib.Path(__file__).parent.parent

TEXT = """HloModule jit_step, is_scheduled=true

FileNames
1 "/home/x/site-packages/flax/linear.py"
2 "/home/x/spp_jax/models/sppnet.py"

FunctionNames
1 "f"

FileLocations
1 {file_name_id=1 function_name_id=1 line=7 end_line=7 column=1 end_column=2}
2 {file_name_id=2 function_name_id=1 line=40 end_line=40 column=1 end_column=2}

StackFrames
1 {file_location_id=2 parent_frame_id=1}
2 {file_location_id=1 parent_frame_id=1}

%fused (p: f32[4,4]) -> bf16[4,4] {
  %p = f32[4,4]{1,0} parameter(0)
  ROOT %c = bf16[4,4]{1,0} convert(%p)
}

%body (t: (s32[], f32[8])) -> (s32[], f32[8]) {
  %t = (s32[], f32[8]{0}) parameter(0)
  %n = s32[] get-tuple-element(%t), index=0
  %x = f32[8]{0} get-tuple-element(%t), index=1
  %y = f32[8]{0} negate(%x)
  ROOT %r = (s32[], f32[8]{0}) tuple(%n, %y)
}

%test (t: (s32[], f32[8])) -> pred[] {
  %t.1 = (s32[], f32[8]{0}) parameter(0)
  ROOT %yes = pred[] constant(true)
}

ENTRY %main (image: bf16[2,8,8,3], kernel: f32[4,4]) -> f32[4,6] {
  %image = bf16[2,8,8,3]{3,2,1,0} parameter(0)
  %kernel = f32[4,4]{1,0} parameter(1)
  %filter = bf16[5,3,3,3]{3,2,1,0} constant({...})
  %conv = (bf16[2,6,6,5]{3,2,1,0}, u8[16]{0}) custom-call(%image, %filter), window={size=3x3}, \
dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward", \
metadata={op_name="a" stack_frame_id=2}
  %z = bf16[2,6,6,5]{3,2,1,0} get-tuple-element(%conv), index=0
  %back = (bf16[5,3,3,3]{3,2,1,0}, u8[0]{0}) custom-call(%image, %z), window={size=3x3}, \
dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardFilter"
  %small = bf16[4,4]{1,0} fusion(%kernel), kind=kLoop, calls=%fused
  %wide = bf16[4,6]{1,0} constant({...})
  %product = f32[4,6]{1,0} custom-call(%small, %wide), custom_call_target="__cublas$gemm", \
backend_config={"gemm_backend_config":{"dot_dimension_numbers":\
{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}
  %zero = s32[] constant(0)
  %eight = f32[8]{0} constant({...})
  %state = (s32[], f32[8]{0}) tuple(%zero, %eight)
  %loop = (s32[], f32[8]{0}) while(%state), condition=%test, body=%body, \
backend_config={"known_trip_count":{"n":"10"}}
  %begin = (f32[4,6]{1,0}, f32[4,6]{1,0}) all-reduce-start(%product), to_apply=%test
  ROOT %end = f32[4,6]{1,0} all-reduce-done(%begin)
}
"""


def test_what_is_counted_of_a_program_written_by_hand():
    program = hlo.parse(TEXT)
    counted = counts.count(program)
    # Bytes of results, then of operands.
    conv = (2 * 6 * 6 * 5 * 2 + 16) + (2 * 8 * 8 * 3 * 2 + 5 * 3 * 3 * 3 * 2)
    back = 5 * 3 * 3 * 3 * 2 + (2 * 8 * 8 * 3 * 2 + 2 * 6 * 6 * 5 * 2)
    small = 4 * 4 * 2 + 4 * 4 * 4
    product = 4 * 6 * 4 + (4 * 4 * 2 + 4 * 6 * 2)
    loop = 10 * (8 * 4 + 8 * 4)
    reduced = 4 * 6 * 4 + 4 * 6 * 4
    assert counted["bytes"] == conv + back + small + product + loop + reduced
    # Each of 2 x 6 x 6 x 5 outputs is 27 products; the kernel's gradient has the same ones.
    assert counted["operations"] == 2 * (2 * 360 * 27) + 2 * 4 * 6 * 4
    assert (counted["fusions"], counted["library_calls"]) == (1, 3)
    assert counted["collectives"] == [{"kind": "all-reduce", "dtype": "f32", "bytes": 96}]
    assert (counted["scatters"], counted["sorts"], counted["unknown_loops"]) == (0, 0, 0)
    assert counted["largest"][0] == {
        "name": "conv",
        "opcode": "__cudnn$convForward",
        "bytes": conv,
        "result": ["bf16[2,6,6,5]", "u8[16]"],
        "source": "spp_jax/models/sppnet.py:40",  # the frame before Flax's
    }


def test_counts_of_several_programs_add_up():
    once = counts.count(hlo.parse(TEXT))
    twice = counts.add([once, once])
    assert twice["bytes"] == 2 * once["bytes"]
    assert twice["collectives"] == 2 * once["collectives"]
    assert len(twice["largest"]) == 10


def test_text_that_is_no_program():
    with pytest.raises(ValueError, match="it has no ENTRY computation"):
        hlo.parse("HloModule x")


def test_limits_of_a_device_by_hand():
    moving, computing = devices.DEVICES["h200"].seconds(4.32e12, 989e12, "bfloat16")
    assert moving == pytest.approx(1)  # nine tenths of 4.8e12 bytes a second
    assert computing == pytest.approx(1.25)  # four fifths of the peak


def _run(python, *arguments):
    command = [str(python), "-m", "benchmarks.gpu_programs", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_without_the_plugin_one_sentence_says_how_to_get_it():
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('jax_plugins') is None)"
    if subprocess.run([sys.executable, "-c", code]).returncode == 0:
        pytest.skip("this Python has a plugin")
    run = _run(sys.executable)
    assert run.returncode == 2
    assert run.stderr.startswith(
        "error: this Python has no JAX for GPUs to compile with; `make gpu-"
    )
    assert run.stderr.count("\n") == 1


def _gpu_python():
    """Returns the Python that `make gpu-programs` sets up."""
    python = ROOT / ".venv-gpu" / "bin" / "python"
    if not python.exists():
        pytest.skip("no .venv-gpu: `make gpu-programs` installs JAX for GPUs there")
    return python


def _rows(tmp_path, *arguments):
    path = tmp_path / "programs.json"
    run = _run(_gpu_python(), *arguments, f"--output={path}")
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(path.read_text())["programs"]


@pytest.mark.slow
def test_a_step_for_a_gpu_has_no_scatter_and_no_map_in_float32(tmp_path):
    rows = _rows(tmp_path, "--only=zf5 224 bfloat16")
    assert [row["deterministic"] for row in rows] == [False, True]
    for row in rows:
        assert row["scatters"] == row["sorts"] == 0
        # The largest kernel, conv4's. The smallest map of 128 images would be 22 MB in float32.
        assert row["largest_float32_map"] == 3 * 3 * 384 * 384 * 4
        assert row["library_calls"] >= 14 + 9


@pytest.mark.slow
@pytest.mark.parametrize("count", [8, 32])
def test_a_step_for_many_gpus(tmp_path, count):
    flags = f"--devices={count}", "--deterministic=no"
    (row,) = _rows(tmp_path, "--only=zf5 180 bfloat16", *flags)
    reduced = sum(entry["bytes"] for entry in row["collectives"])
    assert row["devices"] == count
    assert reduced > 4 * 76e6  # the gradients of 77 million parameters, in four bytes each
    assert {entry["dtype"] for entry in row["collectives"]} == {"f32"}
