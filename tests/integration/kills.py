"""
An upload to a server that is killed in the middle of fragments.
"""

from twisted.internet.threads import deferToThread


async def send_with_kills(case, restart, path, data, chance, *, fragment, kills, about):
    """
    Send all fragments of an upload, and assert that no acknowledged byte gets lost.

    After each kill the client asks by a fragment that is out of step, as one of Windows
    does, and goes on from where it is told to.

    :param case: The test; its ``wire()`` connects to the server.
    :param restart: Kills the server and starts another; returns something to await.
    :param chance: Tells when to kill, and after how many bytes of a packet.
    :param fragment: How many bytes a fragment has.
    :param kills: How often to kill at most.
    :param about: What to say when an assertion fails.
    :returns: A connection to the server that runs, and the session, to be closed.
    """
    wire = await deferToThread(case.wire)
    session = await deferToThread(wire.create, path)
    acknowledged = 0
    while acknowledged < len(data):
        last = min(acknowledged + fragment, len(data))
        if kills and chance.random() < 0.4:
            kills -= 1
            cut = chance.randrange(last - acknowledged + 200)
            await deferToThread(
                wire.fragment, path, session, data, acknowledged, last, cut
            )
            await restart()
            wire = await deferToThread(case.wire)
            status, headers = await deferToThread(
                wire.fragment, path, session, data, len(data) - 1, len(data)
            )
            held = int(headers[b"bits-received-content-range"])
            case.assertEqual(status, 416 if held < len(data) - 1 else 200, about)
            case.assertGreaterEqual(held, acknowledged, f"lost, {about}")
            acknowledged = held
            continue
        status, headers = await deferToThread(
            wire.fragment, path, session, data, acknowledged, last
        )
        case.assertEqual(status, 200, about)
        acknowledged = int(headers[b"bits-received-content-range"])
        case.assertEqual(acknowledged, last, about)
    return wire, session
