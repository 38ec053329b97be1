import pytest

from benchmarks.flamegraph import print_table

STACKS = """\
_run_module_as_main (<frozen runpy>);serve (cli/serve.py);answer (rpc/servicers/orders.py) 6
_run_module_as_main (<frozen runpy>);serve (cli/serve.py) 1
_run_module_as_main (<frozen runpy>);serve (cli/serve.py);log (observability/logs.py);answer (rpc/servicers/orders.py) 1
_bootstrap (threading.py);run (threading.py) 90
"""


def test_the_table_has_the_share_of_each_function_of_the_main_thread_and_of_each_purpose(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(STACKS)
    assert capsys.readouterr().out.splitlines() == [
        " 87.5%  answer (rpc/servicers/orders.py)",
        " 12.5%  serve (cli/serve.py)",
        " 87.5%  messages, and the bytes of the response",
        " 12.5%  everything else",
    ]
