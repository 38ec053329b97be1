from tests.support.processes import run_command


async def test_servers_for_tests_need_a_pipe_that_says_when_the_tests_have_ended() -> None:
    result = await run_command("serve-tests")
    assert result.status == 2
    assert "the standard input must be a pipe" in result.stderr
