"""New members of the enums of choices, as a contributor would add them."""


def add_member(monkeypatch, choices, name, value, *details):
    """Add a member to an enum for one test; returns it."""
    member = object.__new__(choices)
    member._name_, member._value_ = name, value
    member.__init__(value, *details)
    monkeypatch.setattr(choices, "_member_names_", [*choices._member_names_, name])
    monkeypatch.setitem(choices._member_map_, name, member)
    monkeypatch.setitem(choices._value2member_map_, value, member)
    return member
