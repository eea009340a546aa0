"""Tensors against numpy and against the serialisation of the stock client."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult

from models.errors import InvalidTensor
from models.open_inference.bodies import read_request, read_response, write_request, write_response
from models.open_inference.datatypes import FORMS
from models.open_inference.messages import InferResponse, TensorHeader
from models.open_inference.tensors import Tensor, binary_header, read_tensor, tensor_header

NUMBERS = [name for name in FORMS if name != "BYTES"]
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


def header(shape: list[int], datatype: str = "FP64", data: bytes = b"", **parameters: Any) -> TensorHeader:
    said = TensorHeader(name="x", shape=shape, datatype=datatype, parameters=parameters)
    return msgspec.structs.replace(said, data=msgspec.Raw(data)) if data else said


@st.composite
def tensors(draw: st.DrawFn, *, finite: bool = False) -> Tensor:
    datatype = draw(st.sampled_from(list(FORMS)))
    shape = draw(arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
    array: NDArray[Any]
    if datatype == "BYTES":
        texts = draw(st.lists(TEXT, min_size=math.prod(shape), max_size=math.prod(shape)))
        array = np.array(texts, dtype=np.object_).reshape(shape)
    else:
        # Infinity is no JSON, and NaN stands there as null.
        dtype = FORMS[datatype].dtype
        elements = arrays.from_dtype(dtype, allow_infinity=False, allow_nan=not finite)
        array = draw(arrays.arrays(dtype, shape, elements=elements))
    return Tensor(draw(TEXT), datatype, array)


def same(found: Tensor, expected: Tensor) -> None:
    assert found[:2] == expected[:2]
    assert found.array.shape == expected.array.shape
    if expected.datatype == "BYTES":
        assert found.texts() == expected.texts()
    else:
        assert found.array.dtype == expected.array.dtype
        np.testing.assert_array_equal(found.array, expected.array)


@given(tensors())
def test_a_tensor_comes_back_from_json(tensor: Tensor) -> None:
    same(read_tensor(tensor_header(tensor), None), tensor)


@given(tensors())
def test_a_tensor_comes_back_from_nested_lists(tensor: Tensor) -> None:
    data = msgspec.json.encode(tensor.array.tolist())
    same(read_tensor(msgspec.structs.replace(tensor_header(tensor), data=msgspec.Raw(data)), None), tensor)


@given(tensors())
def test_a_tensor_comes_back_from_bytes(tensor: Tensor) -> None:
    said, content = binary_header(tensor)
    same(read_tensor(said, bytes(content)), tensor)


@given(st.lists(tensors(), max_size=4), st.booleans())
def test_a_request_and_a_response_come_back(sent: list[Tensor], binary: bool) -> None:
    body = write_request(sent, ["y"], binary=binary)
    length = None if body.header_length is None else str(body.header_length)
    request, found = read_request(body.content, length)
    assert [each.name for each in request.outputs] == ["y"]
    for one, other in zip(found, sent, strict=True):
        same(one, other)
    body = write_response(InferResponse(model_name="m", id="7", outputs=[]), sent, [binary] * len(sent))
    response, found = read_response(body.content, None if body.header_length is None else str(body.header_length))
    assert (response.model_name, response.id) == ("m", "7")
    for one, other in zip(found, sent, strict=True):
        same(one, other)


@given(tensors(finite=True), st.booleans())
def test_what_the_stock_client_sends_is_read(tensor: Tensor, binary: bool) -> None:
    given_input = InferInput(tensor.name, list(tensor.array.shape), tensor.datatype)
    given_input.set_data_from_numpy(tensor.array, binary_data=binary)
    outputs = [InferRequestedOutput("y", binary_data=binary)]
    body, length = InferenceServerClient.generate_request_body([given_input], outputs=outputs, request_id="7")
    request, found = read_request(body, None if length is None else str(length))
    assert request.id == "7"
    same(found[0], tensor)


@given(tensors(finite=True), st.booleans())
def test_the_stock_client_reads_what_is_sent(tensor: Tensor, binary: bool) -> None:
    body = write_response(InferResponse(model_name="m", id="7", outputs=[]), [tensor], [binary])
    result = InferResult.from_response_body(body.content, header_length=body.header_length)
    found = result.as_numpy(tensor.name)
    assert found.shape == tensor.array.shape
    expected = tensor.array
    if tensor.datatype == "BYTES" and binary:
        found = np.array([each.decode() for each in found.ravel()], dtype=np.object_).reshape(found.shape)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("datatype", NUMBERS)
def test_numbers_are_not_copied_from_bytes(datatype: str) -> None:
    content = bytes(16)
    found = read_tensor(header([16 // FORMS[datatype].dtype.itemsize], datatype), content)
    shares = np.shares_memory(found.array, np.frombuffer(content, dtype=np.uint8))
    # Bytes that are neither 0 nor 1 must not become truth values.
    assert shares == (datatype != "BOOL")


def test_bytes_are_little_endian_and_row_major() -> None:
    found = read_tensor(header([2, 2], "UINT16"), bytes([1, 0, 2, 0, 3, 0, 0, 1]))
    assert found.array.tolist() == [[1, 2], [3, 256]]
    assert read_tensor(header([2], "BYTES"), b"\x02\0\0\0ab\0\0\0\0").array.tolist() == [b"ab", b""]
    assert read_tensor(header([3], "BOOL"), b"\x00\x01\x02").array.tolist() == [False, True, True]


def test_null_is_nan_and_nan_is_null() -> None:
    found = read_tensor(header([2], "FP32", b"[null, 1]"), None)
    assert math.isnan(found.array[0])
    assert bytes(tensor_header(found).data) == b"[null,1.0]"


def test_a_scalar_has_one_element() -> None:
    assert read_tensor(header([], "INT8", b"[5]"), None).array.shape == ()


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (header([1], "FLOAT", b"[1]"), "'x' has the unknown datatype 'FLOAT'; known: BOOL, UINT8"),
        (header([1] * 17, "FP64", b"[1]"), "has 17 dimensions; at most 16"),
        (header([3], "FP64", b"[1, 2]"), r"has 2 elements, but its shape \[3\] has 3"),
        (header([2, 2], "FP64", b"[1, 2, 3]"), r"has 3 elements, but its shape \[2, 2\] has 4"),
        (header([2, 2], "FP64", b"[[1, 2], [3]]"), "lists of unequal lengths"),
        (header([2, 2], "FP64", b"[[1, 2]]"), "lists that do not fit its shape"),
        (header([1, 1], "FP64", b"[[[1]]]"), "Expected `float | null`, got `array`"),
        (header([2**62, 2**62], "FP64", b"[]"), "has 0 elements"),
        (header([2**62, 0], "FP64", b"[]"), "impossible shape"),
        (header([1], "FP64", b'["1"]'), "of datatype FP64 cannot be read: Expected `float | null`, got `str`"),
        (header([1], "FP64", b"[1e999]"), "out of range"),
        (header([1], "FP32", b"[1e39]"), "does not fit FP32"),
        (header([1], "FP16", b"[70000]"), "does not fit FP16"),
        (header([1], "UINT8", b"[256]"), "does not fit UINT8"),
        (header([1], "UINT64", b"[-1]"), "does not fit UINT64"),
        (header([1], "INT64", b"[1.5]"), "Expected `int`, got `float`"),
        (header([1], "BOOL", b"[2]"), "cannot be read"),
        (header([1], "BYTES", b"[1]"), "Expected `str`, got `int`"),
        (header([1], "FP64"), "has no data, neither in the JSON nor by binary_data_size"),
    ],
)
def test_json_that_contradicts_itself_is_refused(said: TensorHeader, problem: str) -> None:
    with pytest.raises(InvalidTensor, match=problem):
        read_tensor(said, None)


@pytest.mark.parametrize(
    ("said", "content", "problem"),
    [
        (header([2], "FP32"), bytes(7), r"has 7 bytes, but its shape \[2\] of FP32 has 8"),
        (header([2], "BOOL"), bytes(3), "has 3 bytes"),
        (header([2**40], "FP64"), bytes(8), "has 8 bytes"),
        (header([2**40], "BYTES"), bytes(8), "too few for the 1099511627776 elements"),
        (header([1], "BYTES"), b"\x05\0\0\0abc", "ends within element 0 of 1"),
        (header([2], "BYTES"), b"\x03\0\0\0abc\0", "ends within the length of element 1 of 2"),
        (header([1], "BYTES"), b"\xff\xff\xff\xffabc", "ends within element 0"),
        (header([1], "BYTES"), b"\x00\0\0\0abc", "has 3 bytes more than its 1 elements take"),
    ],
)
def test_bytes_that_contradict_the_shape_are_refused(said: TensorHeader, content: bytes, problem: str) -> None:
    with pytest.raises(InvalidTensor, match=problem):
        read_tensor(said, content)


def test_bytes_that_are_no_text_are_refused_as_text() -> None:
    with pytest.raises(InvalidTensor, match="'x': an element is not UTF-8"):
        read_tensor(header([1], "BYTES"), b"\x01\0\0\0\xff").texts()


def body_of(said: TensorHeader, content: bytes) -> tuple[bytes, str]:
    json = msgspec.json.encode({"inputs": [said]})
    return json + content, str(len(json))


@pytest.mark.parametrize("size", [-1, True, 1.5, "8"])
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    body, length = body_of(header([1], "FP64", binary_data_size=size), bytes(8))
    with pytest.raises(InvalidTensor, match="binary_data_size must be a number of bytes"):
        read_request(body, length)


def test_sizes_are_compared_with_what_is_there() -> None:
    body, length = body_of(header([1], "FP64", binary_data_size=8), bytes(4))
    with pytest.raises(InvalidTensor, match="'x' announces 8 bytes, but 4 are left after the JSON"):
        read_request(body, length)
    body, length = body_of(header([1], "FP64", binary_data_size=8), bytes(9))
    with pytest.raises(InvalidTensor, match="1 bytes follow the last tensor"):
        read_request(body, length)
    body, length = body_of(header([1], "FP64", b"[1]", binary_data_size=8), bytes(8))
    with pytest.raises(InvalidTensor, match="in the JSON and binary_data_size as well"):
        read_request(body, length)


@pytest.mark.parametrize("length", ["-1", "+5", " 5", "5_0", "", "x", "99999", "9" * 400, "²"])
def test_a_header_length_that_is_none_is_refused(length: str) -> None:
    body, _ = body_of(header([1], "FP64", binary_data_size=8), bytes(8))
    with pytest.raises(InvalidTensor, match="must be a number of bytes up to the body's"):
        read_request(body, length)


@given(st.binary(max_size=200), st.sampled_from([None, "0", "1", "17", "200"]))
def test_rubbish_raises_nothing_else(body: bytes, length: str | None) -> None:
    with pytest.raises((InvalidTensor, msgspec.DecodeError)):
        read_request(body, length)


@given(st.data(), st.lists(tensors(), min_size=1, max_size=3))
def test_a_damaged_request_is_read_or_refused(data: st.DataObject, sent: list[Tensor]) -> None:
    body = write_request(sent, [], binary=True)
    content = bytearray(body.content)
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] = data.draw(st.integers(0, 255))
    else:
        del content[place:]
    try:
        _, found = read_request(bytes(content), None if body.header_length is None else str(body.header_length))
    except (InvalidTensor, msgspec.DecodeError):
        return
    for tensor in found:
        assert tensor.array.dtype == FORMS[tensor.datatype].dtype
