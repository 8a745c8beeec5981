"""What a pickle would call and how much memory it would ask for, found without calling anything.

Standard library only. PyTorch's weights-only reader calls a few functions that take sizes from the
file: a kilobyte can ask for a terabyte. This follows the operations of a pickle on symbols.
"""

import math
import pickletools
from dataclasses import dataclass, field
from typing import Any, BinaryIO

_UNKNOWN = object()
_MOST_REPEATED = 2**26  # bytes of a tensor that repeats the elements of its storage
# These allocate what a number, or a shape among their arguments says. No checkpoint needs it.
_ALLOCATE = ("bytearray", "ndarray", "Tensor", "Storage")
_REBUILD = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_qtensor")
_ITEM_SIZES = {
    **dict.fromkeys(("ByteStorage", "CharStorage", "BoolStorage", "UntypedStorage"), 1),
    **dict.fromkeys(("HalfStorage", "BFloat16Storage", "ShortStorage"), 2),
    **dict.fromkeys(("IntStorage", "FloatStorage"), 4),
    **dict.fromkeys(("LongStorage", "DoubleStorage", "ComplexFloatStorage"), 8),
    "ComplexDoubleStorage": 16,
}


@dataclass(frozen=True)
class Name:
    """A global that a pickle names: ``module.name``."""

    full: str

    @property
    def last(self) -> str:
        """Return the name without its module."""
        return self.full.rpartition(".")[2]


@dataclass(frozen=True)
class Storage:
    """The memory of one or more tensors, kept beside the pickle.

    Attributes:
        key: Its name.
        size: Bytes.
        item: Bytes of an element; 0 where the type is none of ours, and so the size.
    """

    key: Any
    size: int
    item: int


@dataclass
class Scan:
    """What was found.

    Attributes:
        names: The globals, as ``module.name``.
        storages: The storages by their key.
        problem: What asks for memory that the file does not hold, if anything does.
    """

    names: set[str] = field(default_factory=set)
    storages: dict[Any, Storage] = field(default_factory=dict)
    problem: str | None = None


def scan(stream: BinaryIO) -> Scan:
    """Follow one pickle up to its end, where the stream is left.

    Args:
        stream: Bytes that are there as a whole: a file of its own, `io.BytesIO` or a memory map.

    Raises:
        ValueError: If it is no pickle.
    """
    return _Machine().run(stream)


class _Machine:
    def __init__(self):
        self.found = Scan()
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: BinaryIO) -> Scan:
        try:
            for opcode, argument, _ in pickletools.genops(stream):
                self._step(opcode, argument)
        except (IndexError, KeyError, OverflowError) as error:
            raise ValueError(f"malformed pickle ({type(error).__name__})") from error
        return self.found

    def _step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        name = opcode.name
        if name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "DUP":
            self.stack.append(self.stack[-1])
        else:
            self.stack += self._results(opcode, argument, self._pop(opcode))

    def _pop(self, opcode: pickletools.OpcodeInfo) -> list[Any]:
        """Take what an operation takes, the mark not included."""
        before = opcode.stack_before
        if pickletools.markobject not in before:
            taken = len(before)
            operands = self.stack[len(self.stack) - taken :] if taken else []
            if len(operands) < taken:
                raise IndexError
            del self.stack[len(self.stack) - taken :]
            return operands
        mark = len(self.stack) - 1 - self.stack[::-1].index(pickletools.markobject)
        start = mark - before.index(pickletools.markobject)
        operands = self.stack[start:mark] + self.stack[mark + 1 :]
        del self.stack[start:]
        return operands

    def _results(self, opcode, argument, operands: list[Any]) -> list[Any]:
        """Return what an operation leaves on the stack."""
        name = opcode.name
        if name == "GLOBAL":
            return [self._name(argument.replace(" ", "."))]
        if name == "STACK_GLOBAL":
            return [self._name(".".join(map(str, operands)))]
        if name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE"):
            return [tuple(operands)]
        if name in ("BINPERSID", "PERSID"):
            return [self._storage(operands[0] if operands else None)]
        if name in ("REDUCE", "NEWOBJ"):
            self._call(*operands)
            return [_UNKNOWN]
        if name in ("BUILD", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"):
            return operands[:1]
        if pickletools.markobject in opcode.stack_after:
            return [pickletools.markobject]
        if not opcode.stack_after:
            return []
        return [_UNKNOWN if argument is None else argument]

    def _name(self, full: str) -> Name:
        if full.startswith("__builtin__."):  # protocol 2 speaks of Python 2
            full = full.replace("__builtin__", "builtins", 1)
        self.found.names.add(full)
        return Name(full)

    def _storage(self, identity: Any) -> Storage | object:
        """Note a storage: ``('storage', type, key, device, elements, ...)``."""
        if not (isinstance(identity, tuple) and len(identity) >= 5):
            return _UNKNOWN
        _, kind, key, _, elements, *_ = identity
        item = _ITEM_SIZES.get(kind.last if isinstance(kind, Name) else "", 0)
        if not isinstance(elements, int) or elements < 0:
            self.found.problem = f"a storage of {elements!r} elements"
            return _UNKNOWN
        storage = Storage(key, elements * item, item)
        self.found.storages[key] = max(
            storage, self.found.storages.get(key, storage), key=lambda s: s.size
        )
        return storage

    def _call(self, function: Any, arguments: Any) -> None:
        """Note a call that asks for memory by itself."""
        if not isinstance(function, Name):
            return
        if not isinstance(arguments, tuple):
            self.found.problem = f"{function.full} of arguments that are not a tuple"
        elif function.last == "_rebuild_from_type_v2":  # calls its first argument
            self._call(*(arguments[0], arguments[2]) if len(arguments) > 2 else (None, None))
        elif function.last.endswith(_ALLOCATE):
            sizes = [part for part in _flat(arguments) if not isinstance(part, (str, bytes))]
            if sizes:
                shown = [size for size in sizes if isinstance(size, int)] or "unknown"
                self.found.problem = f"{function.full} of size {shown}"
        elif function.last == "_reconstruct":
            # numpy's own pickles make an empty array, whose contents then state its shape.
            shape = arguments[1] if len(arguments) > 1 else None
            if shape != (0,):
                self.found.problem = f"an array of shape {shape}"
        elif function.last in _REBUILD:
            self.found.problem = _misfit(*arguments[:4]) or self.found.problem


def _misfit(storage: Any = None, offset: Any = None, shape: Any = None, stride: Any = None):
    """Say what is wrong with the size of a tensor, if it reaches out of its storage."""
    said = f"a tensor of shape {shape} and strides {stride}"
    if not (isinstance(storage, Storage) and isinstance(shape, tuple)
            and isinstance(stride, tuple)):  # fmt: skip
        return f"{said} that is not in a storage"
    numbers = (offset, *shape, *stride)
    if len(shape) != len(stride) or not all(isinstance(n, int) and n >= 0 for n in numbers):
        return said
    if math.prod(shape) == 0:
        return None
    needed = offset + 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    repeated = math.prod(shape) * storage.item  # strides of 0 repeat; a copy would not
    if needed * storage.item > storage.size or repeated > max(storage.size, _MOST_REPEATED):
        return f"{said} in {storage.size} bytes"
    return None


def _flat(value: Any):
    if isinstance(value, tuple):
        for part in value:
            yield from _flat(part)
    else:
        yield value
