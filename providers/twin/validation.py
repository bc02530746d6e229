"""What the API server finds wrong with an object: unknown fields, types, and the rules of the CRD's schema.

Invariant: the texts are the server's own, so that what is printed in a rehearsal is what is printed in the window.
Built-in kinds are not checked field by field. Of the CRDs' CEL rules the twin knows those in `_RULES`, by their text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from providers.ports import Refused
from providers.twin.kinds import Kind

_METADATA = frozenset(
    [
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "labels",
        "annotations",
        "ownerReferences",
        "finalizers",
        "managedFields",
    ]
)
_TYPES = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
_TYPED = {
    "object": "map",
    "array": "list",
    "string": "string",
    "boolean": "boolean",
    "integer": "numeric",
    "number": "numeric",
}
_UNCHECKED = (
    "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation"
)
_QUALIFIED = re.compile(
    r"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
Schema = Mapping[str, Any]


def check(kind: Kind, name: str, body: Mapping[str, Any], old: Mapping[str, Any] | None) -> None:
    """Raises Refused, with the server's words, when `body` is not an object of that kind."""
    unknown = [f"metadata.{field}" for field in body.get("metadata") or {} if field not in _METADATA]
    if kind.schema is not None:
        unknown += _unknown(kind.schema, body, "")
    if unknown:
        said = ", ".join(f'unknown field "{field}"' for field in unknown)
        raise Refused(
            f'{kind.name} in version "{kind.api.rpartition("/")[2]}" cannot be handled as a {kind.name}: '
            f"strict decoding error: {said}"
        )
    if kind.schema is None:
        return
    errors = list(_errors(kind.schema, body, ""))
    if errors and _has_rules(kind):
        errors.append(_UNCHECKED)
    if errors := errors or list(_broken_rules(kind.schema, body, old, "")):
        raise invalid(kind, name, errors)


def invalid(kind: Kind, name: str, errors: list[str]) -> Refused:
    said = errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]"
    return Refused(f'{kind.qualified} "{name}" is invalid: {said}')


def _children(schema: Schema, value: Any, path: str) -> Iterator[tuple[Schema, Any, str, Any]]:
    """The (schema, value, path, key) of everything inside `value` that the schema describes."""
    if isinstance(value, Mapping):
        inside, rest = schema.get("properties", {}), schema.get("additionalProperties")
        for field, item in value.items():
            at = f"{path}.{field}" if path else field
            if not path and field in ("apiVersion", "kind", "metadata"):
                continue
            if field in inside:
                yield inside[field], item, at, field
            elif isinstance(rest, Mapping):
                yield rest, item, at, field
    elif isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            yield schema["items"], item, f"{path}[{number}]", number


def check_typed(kind: Kind, name: str, namespace: str | None, wanted: Mapping[str, Any]) -> None:
    """What an apply is asked first: whether each of its fields is declared, with that type. Raises Refused."""
    if kind.schema is None:
        return
    unknown = next(
        (f".{field}: field not declared in schema" for field in _unknown(kind.schema, wanted, "")), None
    )
    fault = next(_mistyped(kind.schema, wanted, ""), unknown)
    if fault is not None:
        object_ = f"({namespace or ''}/{name}; {kind.api}, Kind={kind.name})"
        raise Refused(f"failed to create typed patch object {object_}: {fault}")


def _mistyped(schema: Schema, value: Any, path: str) -> Iterator[str]:
    want = _TYPED.get(schema.get("type", ""))
    found = _TYPED.get(_TYPES.get(type(value), ""))
    if want and found != want and value is not None:
        yield f".{path}: expected {want}, got {json.dumps(value)}"
        return
    for inner, item, at, _ in _children(schema, value, path):
        yield from _mistyped(inner, item, at)


def _unknown(schema: Schema, value: Any, path: str) -> Iterator[str]:
    closed = "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(value, list) and "items" not in schema and closed:
        # Where the schema has a plain value, whatever fields stand inside the list are unknown ones.
        for number, item in enumerate(value):
            yield from _unknown({}, item, f"{path}[{number}]")
    if isinstance(value, Mapping) and closed:
        known = schema.get("properties", {})
        yield from (f"{path}.{field}" if path else field for field in value if field not in known)
    for inner, item, at, _ in _children(schema, value, path):
        yield from _unknown(inner, item, at)


def _errors(schema: Schema, value: Any, path: str) -> Iterator[str]:
    if value is None and schema.get("nullable"):
        return
    found = _TYPES.get(type(value), "null")
    want = schema.get("type")
    fits = found == want or (want == "number" and found == "integer")
    if schema.get("x-kubernetes-int-or-string"):
        want, fits = "integer,string", found in ("integer", "string")
    if want and not fits:
        yield f'{path}: Invalid value: "{found}": {path} in body must be of type {want}: "{found}"'
        return
    if isinstance(value, Mapping):
        for field in schema.get("required", ()):
            if field not in value:
                yield f"{path}.{field}: Required value" if path else f"{field}: Required value"
    yield from _limits(schema, value, path)
    for inner, item, at, _ in _children(schema, value, path):
        yield from _errors(inner, item, at)


def _limits(schema: Schema, value: Any, path: str) -> Iterator[str]:
    if "enum" in schema and value not in schema["enum"]:
        known = ", ".join(f'"{one}"' for one in schema["enum"])
        yield f'{path}: Unsupported value: "{value}": supported values: {known}'
    said = f"{path}: Invalid value: {value}: {path} in body should be"
    if "minimum" in schema and value < schema["minimum"]:
        yield f"{said} greater than or equal to {schema['minimum']}"
    if "maximum" in schema and value > schema["maximum"]:
        yield f"{said} less than or equal to {schema['maximum']}"
    if "minLength" in schema and len(value) < schema["minLength"]:
        yield f'{path}: Invalid value: "{value}": {path} in body should be at least {schema["minLength"]} chars long'
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        yield f"{path}: Too long: may not be more than {schema['maxLength']} bytes"
    if "minItems" in schema and len(value) < schema["minItems"]:
        yield (
            f"{path}: Invalid value: {len(value)}: {path} in body should have at least {schema['minItems']} items"
        )
    for limit, words in (("maxItems", "items"), ("maxProperties", "properties")):
        if limit in schema and len(value) > schema[limit]:
            yield f"{path}: Too many: {len(value)}: must have at most {schema[limit]} {words}"


def _has_rules(kind: Kind) -> bool:
    return next(_rules_in(kind.schema), None) is not None


def _rules_in(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        yield from (rule["rule"] for rule in schema.get("x-kubernetes-validations", ()))
        for inner in schema.values():
            yield from _rules_in(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _rules_in(inner)


def unknown_rules(kind: Kind) -> list[str]:
    """The CEL rules of the kind's schema that the twin does not enforce."""
    return [rule for rule in _rules_in(kind.schema) if rule not in _RULES]


def _broken_rules(schema: Schema, value: Any, old: Any, path: str) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        holds = _RULES[rule["rule"]]
        if not holds(value, old):
            shown = f"{json.dumps(value)}: " if not isinstance(value, Mapping | list) else ""
            yield f"{path}: Invalid value: {shown}{rule['message']}"
    for inner, item, at, key in _children(schema, value, path):
        before = old.get(key) if isinstance(old, Mapping) and isinstance(key, str) else None
        yield from _broken_rules(inner, item, before, at)


def _is_qualified(key: str) -> bool:
    return _QUALIFIED.fullmatch(key) is not None and len(key.rpartition("/")[0]) <= 253


def _ipam_fits(localnet: Any, _old: Any) -> bool:
    enabled: bool = localnet.get("ipam", {}).get("mode", "Enabled") == "Enabled"
    return enabled == ("subnets" in localnet)


_RULES: dict[str, Callable[[Any, Any], bool]] = {
    "self.all(k, !format.qualifiedName().validate(k).hasValue())": lambda new, _: all(
        map(_is_qualified, new)
    ),
    "self == oldSelf": lambda new, old: old is None or new == old,
    "self.matches('^[^,:]+$')": lambda new, _: re.fullmatch("[^,:]+", new) is not None,
    "has(self.topology) && self.topology == 'Localnet' ? has(self.localnet): !has(self.localnet)": (
        lambda new, _: (new.get("topology") == "Localnet") == ("localnet" in new)
    ),
    "!has(self.ipam) || !has(self.ipam.mode) || self.ipam.mode == 'Enabled' ? has(self.subnets) : !has(self.subnets)": (
        _ipam_fits
    ),
}
