import time
from tiny_run import *
from igd_jax.train import train
from igd_jax.evaluate import evaluate
from igd_jax.core.io import Workdir
def test_a(tmp_path):
    t=time.time()
    d=save_data(tmp_path/"d"); m=save_model(tmp_path/"m"); print("made", time.time()-t)
    for i in range(2):
        t=time.time()
        print(train(tiny_config(d,m), Workdir(str(tmp_path/"w"))), time.time()-t)
    t=time.time()
    evaluate(tiny_config(d,m), Workdir(str(tmp_path/"w")), name="x"); print(time.time()-t)
    print([str(p.relative_to(tmp_path)) for p in (tmp_path/"w").rglob("*")][:50])
    print((tmp_path/"w/metrics.jsonl").read_text())
    print((tmp_path/"w/eval/x/predictions.jsonl").read_text()[:1500])
