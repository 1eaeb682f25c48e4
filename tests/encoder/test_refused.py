"""A hundred torch and a hundred ONNX operations outside the list, each refused with its name."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from rmab_opt.encoder import Network
from rmab_opt.errors import ModelError

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
F = torch.nn.functional


def words(text):
    return text.split()


CALLS = {
    name: getattr(torch, name)
    for name in (
        words(
        "exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square reciprocal sin cos tan asin acos atan sinh "
        "cosh asinh acosh atanh erfc erfinv floor ceil round trunc frac sign sgn sigmoid_ tanh_ digamma "
        "lgamma i0 logit cumsum cumprod cummax cummin logcumsumexp sort argsort median nanmean std var prod "
        "norm logsumexp argmax argmin bernoulli poisson fft angle deg2rad rad2deg heaviside nan_to_num "
        "positive signbit isnan isinf isfinite logical_not count_nonzero unique bincount diff tril triu diag "
        "diagonal outer cov corrcoef rot90 fliplr trace cdist_ normalize_ "
    )
    )
    if hasattr(torch, name) and callable(getattr(torch, name))
}  # fmt: skip
CALLS |= {
    name: getattr(F, name)
    for name in (
        [
            "softsign",
            "hardshrink",
            "softmin",
            "normalize",
            "layer_norm_",
            "rrelu",
            "glu",
            "tanhshrink_",
            "feature_alpha_dropout_",
            "gumbel_softmax",
            "instance_norm",
            "local_response_norm_",
            "one_hot_",
        ]
    )
    if hasattr(F, name)
}
CALLS |= {
    "threshold": lambda h: F.threshold(h, 0.1, 20.0),
    "layer_norm": lambda h: F.layer_norm(h, (4,)),
    "mul": lambda h: h * h,
    "truediv": lambda h: 1.0 / h,
    "pow": lambda h: h**2,
    "matmul": lambda h: h @ h.T,
    "where": lambda h: torch.where(h > 0, h, -h),
    "gt": lambda h: (h > 0).double(),
    "floordiv": lambda h: h // 2,
    "mod": lambda h: h % 2,
    "rand_like": lambda h: h + torch.rand_like(h),
    "dropout": lambda h: F.dropout(h),
    "float": lambda h: h.float(),
    "half": lambda h: h.half(),
    "int": lambda h: h.int(),
    "div": lambda h: torch.div(h, 2, rounding_mode="floor"),
    "einsum": lambda h: torch.einsum("ij,ij->ij", h, h),
    "bmm": lambda h: torch.bmm(h[None], h[None].transpose(1, 2)),
    "lerp": lambda h: torch.lerp(h, -h, h),
    "addcmul": lambda h: torch.addcmul(h, h, h),
    "topk": lambda h: torch.topk(h, 2),
    "lp_pool1d": lambda h: F.lp_pool1d(h, 2.0, 2),
    "interpolate": lambda h: F.interpolate(h[None], scale_factor=2),
    "cosine_similarity": lambda h: F.cosine_similarity(h, h),
    "multi": lambda h: F.scaled_dot_product_attention(h, h, h),
    "clamp_min": lambda h: torch.clamp_min(h, h),
    "avg_pool1d": lambda h: F.avg_pool1d(h, 3, 2, ceil_mode=True),
    "sum": lambda h: h.sum(dim=1, dtype=torch.float32),
    "pad": lambda h: F.pad(h[None], (1, 1), mode="reflect"),
    "bitwise_not": lambda h: torch.bitwise_not(h),
    "hypot": lambda h: torch.hypot(h, h),
    "atan2": lambda h: torch.atan2(h, h),
    "fmod": lambda h: torch.fmod(h, 2.0),
    "remainder": lambda h: torch.remainder(h, 2.0),
}


class Calls(torch.nn.Module):
    def __init__(self, call):
        super().__init__()
        self.first, self.call = torch.nn.Linear(3, 4), call

    def forward(self, x):
        return self.call(self.first(x))


def test_there_are_a_hundred_calls():
    assert len(CALLS) >= 100


@pytest.mark.parametrize("name", CALLS)
def test_calls_outside_the_list_are_refused_by_name(name):
    with pytest.raises(ModelError) as error:
        Network.from_torch(Calls(CALLS[name]), shape=(3,), output=0)
    said = str(error.value).lower()
    known = {
        "multi": "scaled_dot_product_attention",
        "truediv": "divides",
        "fft": "fft",
        "lp_pool1d": "pool",
        "where": "gt",
    }
    word = known.get(name, name.rstrip("_")).lower()
    assert word in said or "traced" in said or f"'{word}'" in said, said


LAYERS = {
    "Hardshrink": (),
    "Softsign": (),
    "Softmin": (1,),
    "Threshold": (0.1, 20.0),
    "GLU": (),
    "RReLU": (),
    "LayerNorm": (4,),
    "GroupNorm": (2, 4),
    "RMSNorm": (4,),
    "Bilinear": (4, 4, 2),
    "GRU": (4, 2),
    "LSTM": (4, 2),
    "RNN": (4, 2),
    "GRUCell": (4, 2),
    "MultiheadAttention": (4, 2),
    "TransformerEncoderLayer": (4, 2),
    "CosineSimilarity": (),
    "Embedding": (4, 2),
    "LPPool1d": (2.0, 2),
    "ConvTranspose1d": (4, 2, 1),
    "Conv3d": (4, 2, 1),
    "InstanceNorm1d": (4,),
    "MaxPool3d": (2,),
    "AvgPool3d": (2,),
    "PixelShuffle": (2,),
    "Upsample": (2,),
    "Fold": (2, 1),
    "Unfold": (1,),
    "ChannelShuffle": (2,),
    "AdaptiveMaxPool1d": (1,),
    "AdaptiveMaxPool2d": (1,),
    "ReflectionPad1d": (1,),
    "CircularPad1d": (1,),
    "LocalResponseNorm": (2,),
    "FeatureAlphaDropout": (),
    "Softmax2d": (),
    "PairwiseDistance": (),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_outside_the_list_are_refused_by_name(name):
    made = getattr(torch.nn, name)
    layer = made(*LAYERS[name])
    with pytest.raises(ModelError, match=f"layer 1 is a {name}"):
        Network.from_torch(torch.nn.Sequential(torch.nn.Linear(3, 4), layer), shape=(3,), output=0)


def test_each_argument_attribute_hook_and_state_is_read_or_refused():
    nn = torch.nn

    def refused(module, match, **given):
        with pytest.raises(ModelError, match=match):
            Network.from_torch(module, **given)

    hooked = nn.Sequential(nn.Linear(3, 1))
    hooked.register_forward_pre_hook(lambda module, given: (given[0] * 2,))
    refused(hooked, "has a hook")
    own = nn.Linear(3, 1)
    own.forward = lambda x: x.sum(dim=1, keepdim=True)
    refused(own, "a forward that was put on the object")
    more = nn.Linear(3, 1)
    more.register_buffer("mask", torch.ones(1))
    refused(nn.Sequential(more), "holds 'mask'")
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(3, 1))
    refused(nn.Sequential(normed), "ParametrizedLinear")
    refused(
        nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False), nn.Linear(3, 1)),
        "per channel when training",
        shape=(3,),
    )
    refused(nn.Sequential(nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular"), nn.Flatten(), nn.Linear(4, 1)),
            "padding_mode", shape=(1, 4))  # fmt: skip
    refused(nn.Sequential(nn.MaxPool1d(2, ceil_mode=True), nn.Linear(3, 1)), "ceil_mode", shape=(5,))
    refused(nn.Linear(3, 2), "2 outputs")

    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.calls = nn.Linear(3, 1), 0

        def forward(self, x):
            self.calls += 1
            return self.last(x) * self.calls

    refused(Counts(), "from call to call")

    class Batch(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(3, 1)

        def forward(self, x):
            return self.last(x - x.mean(dim=0, keepdim=True))

    refused(Batch(), "others of its batch")

    class Sees(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 1)

        def forward(self, x):
            h = self.first(x)
            h[:, 0].relu_()
            return self.last(h)

    refused(Sees(), "in place")

    class Placed(Sees):
        def forward(self, x):
            return self.last(self.first(x).max(1, keepdim=True)[1].to(x.dtype) + self.first(x))

    refused(Placed(), "positions of a maximum")


@pytest.mark.parametrize(("bad", "match"), [(np.nan, r"0\.weight is nan at \[1, 2\]"), (np.inf, r"0\.weight is inf")])
def test_weights_that_are_no_numbers_are_named(bad, match):
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    module[0].weight.data[1, 2] = bad
    with pytest.raises(ModelError, match=match):
        Network.from_torch(module)


def test_what_overflows_or_is_empty_or_quantised_is_refused():
    nn = torch.nn
    module = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    for part in (module[0], module[2]):
        part.weight.data *= 1e200
    with pytest.raises(ModelError, match="not a finite number"):
        Network.from_torch(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that it has nothing to initialise.
        empty = nn.Sequential(nn.Linear(3, 0), nn.ReLU(), nn.Linear(0, 1))
    with pytest.raises(ModelError, match="non-empty axes"):
        Network.from_torch(empty, shape=(3,))

    class Linear(nn.Linear):
        """Stands for torch's own quantised layer, which has the same name."""

    Linear.__module__ = "torch.ao.quantised"
    with pytest.raises(ModelError, match=r"layer 0 is a torch\.ao\.quantised\.Linear"):
        Network.from_torch(nn.Sequential(Linear(3, 1)))


KINDS = [
    "Acos",
    "Acosh",
    "ArgMax",
    "ArgMin",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "Bernoulli",
    "BitShift",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "BlackmanWindow",
    "CastLike",
    "Ceil",
    "CenterCropPad",
    "Compress",
    "ConcatFromSequence",
    "ConvInteger",
    "ConvTranspose",
    "Cos",
    "Cosh",
    "CumSum",
    "DFT",
    "DeformConv",
    "DequantizeLinear",
    "Det",
    "DynamicQuantizeLinear",
    "Einsum",
    "Equal",
    "Exp",
    "EyeLike",
    "Floor",
    "GRU",
    "GatherElements",
    "GatherND",
    "GlobalLpPool",
    "Greater",
    "GreaterOrEqual",
    "GridSample",
    "GroupNormalization",
    "HammingWindow",
    "HannWindow",
    "Hardmax",
    "If",
    "ImageDecoder",
    "InstanceNormalization",
    "IsInf",
    "IsNaN",
    "LRN",
    "LSTM",
    "LayerNormalization",
    "Less",
    "LessOrEqual",
    "Log",
    "Loop",
    "LpNormalization",
    "LpPool",
    "MatMulInteger",
    "MaxRoiPool",
    "MaxUnpool",
    "MelWeightMatrix",
    "Mod",
    "Multinomial",
    "NonMaxSuppression",
    "NonZero",
    "Not",
    "OneHot",
    "Or",
    "Pow",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
    "RNN",
    "RandomNormalLike",
    "RandomUniformLike",
    "Reciprocal",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceProd",
    "ReduceSumSquare",
    "RegexFullMatch",
    "Resize",
    "ReverseSequence",
    "RoiAlign",
    "Round",
    "STFT",
    "Scan",
    "Scatter",
    "ScatterElements",
    "ScatterND",
    "SequenceConstruct",
    "Sign",
    "Sin",
    "Sinh",
    "Softsign",
    "Sqrt",
    "StringNormalizer",
    "Tan",
    "ThresholdedRelu",
    "TopK",
    "Trilu",
    "Unique",
    "Upsample",
    "Where",
    "Xor",
]


def test_there_are_a_hundred_kinds():
    assert len(KINDS) >= 100


def saved(folder, nodes, constants, shape=(None, 3), opset=18, outputs=("y",)):
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [
            numpy_helper.from_array(np.asarray(v, dtype=getattr(v, "dtype", np.float32)), k)
            for k, v in constants.items()
        ],
    )
    path = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), str(path))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_operators_outside_the_list_are_refused_by_name(tmp_path, kind):
    from onnx import helper

    weight = np.ones((3, 3), dtype=np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node(kind, ["a", "a"], ["y"])]
    with pytest.raises(ModelError, match=rf"node 1 \({kind}\)"):
        Network.from_onnx(saved(tmp_path, nodes, {"w": weight}), output=0)


@pytest.mark.parametrize(
    ("node", "match"),
    [
        (("Cast", ["a"], {"to": 7}), "to INT64"),
        (("Relu", ["a"], {"domain": "com.microsoft"}), "com.microsoft"),
        (("Relu", ["a"], {"colour": 3}), "attribute colour"),
        (("Mul", ["a", "a"], {}), "product of two tensors"),
        (("MatMul", ["a", "a"], {}), "two parts of the network"),
        (("Shrink", ["a"], {"lambd": 0.5, "bias": 0.1}), "jumps"),
        (("Dropout", ["a", "", "yes"], {}), "at random"),
        (("Pad", ["a", "pads"], {"mode": "reflect"}), "mode"),
    ],
)
def test_onnx_attributes_are_read_or_refused(tmp_path, node, match):
    from onnx import helper

    kind, inputs, given = node
    constants = {"w": np.ones((3, 3), dtype=np.float32), "yes": np.array(True), "pads": np.array([0, 1, 0, 1])}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node(kind, inputs, ["y"], **given)]
    with pytest.raises(ModelError, match=match) as error:
        Network.from_onnx(saved(tmp_path, nodes, constants), output=0)
    assert f"node 1 ({kind})" in str(error.value)


def test_files_that_hang_on_their_batch_or_are_no_graph_are_refused(tmp_path):
    pytest.importorskip("onnxruntime")
    from onnx import helper

    weight = np.ones((3, 3), dtype=np.float32)
    first = helper.make_node("MatMul", ["x", "w"], ["a"])
    mean = helper.make_node("ReduceMean", ["a", "axis"], ["m"], keepdims=1)
    nodes = [first, mean, helper.make_node("Sub", ["a", "m"], ["y"])]
    with pytest.raises(ModelError, match="hangs on the others of its batch"):
        Network.from_onnx(saved(tmp_path, nodes, {"w": weight, "axis": np.array([0])}), output=0)
    twice = [first, helper.make_node("Relu", ["a"], ["a"]), helper.make_node("Neg", ["a"], ["y"])]
    with pytest.raises(ModelError, match=r"node 1 \(Relu\): 'a' is given twice"):
        Network.from_onnx(saved(tmp_path, twice, {"w": weight}), output=0)
    bad = weight.copy()
    bad[0, 0] = np.nan
    with pytest.raises(ModelError, match="not a finite number"):
        Network.from_onnx(saved(tmp_path, [first, helper.make_node("Neg", ["a"], ["y"])], {"w": bad}), output=0)
