import inspect

from models import errors


def test_docstring_draws_the_tree_of_exceptions() -> None:
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if line.startswith("ModelError") or "── " in line:
            name = line.split("── ")[-1].split()[0]
            depth = line.find("── ") // 4 + 1
            path[depth:] = [name]
            drawn[name] = path[depth - 1] if depth else "Exception"
    defined = {name: value.__bases__[0].__name__ for name, value in vars(errors).items() if inspect.isclass(value)}
    assert drawn == defined
