"""Shows to `commerce debug` what a running server does; nothing here runs until a question is asked.

It looks into the other parts of the server from outside, so that they need not write down what they do at every step:
into the coroutines of calls, to see what they wait for, and into pools, for their connections. What it shows contains
no SQL, and nothing of requests and responses.
"""
