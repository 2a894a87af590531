import timm

from richsem.models.networks import shapes_only


def test_a_network_of_shapes_has_the_names_and_shapes_of_the_real_one():
    with shapes_only():
        shapes = timm.create_model("test_vit")
    real = timm.create_model("test_vit")
    assert all(tensor.is_meta for tensor in shapes.state_dict().values())
    assert [p.requires_grad for p in shapes.parameters()] == [
        p.requires_grad for p in real.parameters()
    ]
    assert {n: (t.shape, t.dtype) for n, t in shapes.state_dict().items()} == {
        n: (t.shape, t.dtype) for n, t in real.state_dict().items()
    }
