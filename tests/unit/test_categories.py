"""How classes are called."""

from richsem.data.categories import Category, spoken_names


def test_names_are_spoken_without_signs_and_keep_brackets_that_tell_them_apart():
    for names, expected in (
        (("aerosol_can", "bow_(weapon)", "dog"), ["aerosol can", "bow", "dog"]),
        (("bow_(weapon)", "bow_(knot)", "dog_(animal)"), ["bow (weapon)", "bow (knot)", "dog"]),
    ):
        categories = tuple(Category(id=i, name=name) for i, name in enumerate(names))
        assert spoken_names(categories) == expected
