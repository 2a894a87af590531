"""How classes are called."""

from richsem.data.categories import Category, spoken_names


def test_names_are_spoken_without_signs():
    names = ("aerosol_can", "bow_(weapon)", "dog")
    categories = tuple(Category(id=i, name=name) for i, name in enumerate(names))
    assert spoken_names(categories) == ["aerosol can", "bow", "dog"]


def test_names_that_would_be_one_keep_their_brackets():
    names = ("bow_(weapon)", "bow_(decorative_ribbons)", "dog_(animal)")
    categories = tuple(Category(id=i, name=name) for i, name in enumerate(names))
    spoken = spoken_names(categories)
    assert spoken == ["bow (weapon)", "bow (decorative ribbons)", "dog"]
