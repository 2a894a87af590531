"""CenterNet2: a heat map proposes boxes, a cascade refines and names them (METHOD 3.3, 3.4)."""
