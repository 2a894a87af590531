import timm

from richsem.models.networks import shapes_only


def test_a_network_of_shapes_has_the_names_and_shapes_of_the_real_one():
    with shapes_only():
        shapes = timm.create_model("test_vit")
    real = timm.create_model("test_vit")
    assert all(tensor.is_meta for tensor in shapes.state_dict().values())
    trained = ([p.requires_grad for p in one.parameters()] for one in (shapes, real))
    assert next(trained) == next(trained)
    own, theirs = shapes.state_dict(), real.state_dict()
    assert own.keys() == theirs.keys()
    assert all((t.shape, t.dtype) == (own[n].shape, own[n].dtype) for n, t in theirs.items())
