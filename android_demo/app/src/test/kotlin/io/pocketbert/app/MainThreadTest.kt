/*
 * The main thread is never held up by the app: what it does on a keystroke and in each message that it posts is timed.
 *
 * The first rounds are the virtual machine's, which compiles what is run often, and later where others hold the processor; the
 * quietest counts: what blocks, blocks in each, however many there are.
 */
package io.pocketbert.app

import android.os.Handler
import android.os.Looper
import android.text.Editable
import android.text.TextWatcher
import io.pocketbert.chat.FakeModels
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.test.resetMain
import kotlinx.coroutines.test.setMain
import org.junit.After
import org.junit.Before
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import java.lang.management.ManagementFactory
import kotlin.coroutines.CoroutineContext
import kotlin.test.assertTrue

@RunWith(PhoneRunner::class)
@GraphicsMode(GraphicsMode.Mode.NATIVE)
@Config(sdk = [35], application = TestApplication::class, qualifiers = "w411dp-h891dp-xhdpi")
@OptIn(ExperimentalCoroutinesApi::class)
class MainThreadTest {
    private val messages by lazy { Messages() }

    @Before
    fun timeMessages() = Dispatchers.setMain(messages)

    @After
    fun asItWas() = Dispatchers.resetMain()

    /** Each message that coroutines post to the main thread, timed. */
    private class Messages : CoroutineDispatcher() {
        val held = Held()
        private val handler = Handler(Looper.getMainLooper())

        override fun dispatch(context: CoroutineContext, block: Runnable) {
            handler.post { held.during(block::run) }
        }
    }

    /** What is done between this watcher's two calls, timed: the app's watcher was there before. */
    private class Keys : TextWatcher {
        val held = Held()

        override fun beforeTextChanged(text: CharSequence, start: Int, count: Int, after: Int) = Unit
        override fun onTextChanged(text: CharSequence, start: Int, before: Int, count: Int) = held.start()
        override fun afterTextChanged(text: Editable) = held.stop()
    }

    /**
     * How long this thread was held: what it computed, waited and was kept out of locks. That is the time that passes on an
     * idle machine, without what a busy one takes for others.
     */
    private class Held {
        val ms = mutableListOf<Double>()
        private val threads = ManagementFactory.getThreadMXBean().apply { isThreadContentionMonitoringEnabled = true }
        private var start = 0L

        private fun now() = threads.currentThreadCpuTime + threads.getThreadInfo(Thread.currentThread().id).run {
            (waitedTime + blockedTime) * 1_000_000
        }

        fun start() {
            start = now()
        }

        fun stop() {
            ms += (now() - start) / 1e6
        }

        fun during(work: () -> Unit) {
            start()
            work()
            stop()
        }
    }

    private class Round(val key: Double, val message: Double)

    private fun Phone.round(text: String): Round {
        val keys = Keys()
        messages.held.ms.clear()
        input.addTextChangedListener(keys)
        for (letter in text) {
            input.append(letter.toString())
            Thread.sleep(3)
            shadowOf(Looper.getMainLooper()).idle()
        }
        settle { chat.state.value.draft.answer != null }
        input.removeTextChangedListener(keys)
        send()
        val (key, message) = keys.held.ms to messages.held.ms
        assertTrue(key.size >= text.length && message.size > text.length / 2, "${key.size} keys, ${message.size} messages timed")
        return Round(key.max(), message.max())
    }

    @Test
    fun neitherAKeystrokeNorAMessageOfOursHoldsTheMainThreadForFourMilliseconds() {
        TestApplication.models = { FakeModels(answerMs = 1) }
        val phone = Phone().start()
        val rounds = rounds({ all -> maxOf(all.minOf { it.key }, all.minOf { it.message }) }) {
            phone.round("what a good film that was, i would see it again")
        }
        println("main thread, longest in ms by round: keys %s, messages %s".format(shown(rounds.map { it.key }), shown(rounds.map { it.message })))
        assertTrue(rounds.minOf { it.key } < LONGEST_MS, "a keystroke")
        assertTrue(rounds.minOf { it.message } < LONGEST_MS, "a message")
    }

    @Test
    fun norDoesAPasteOfAHundredThousandCharacters() {
        TestApplication.models = { FakeModels(answerMs = 1) }
        val phone = Phone().start()
        val times = rounds({ it.min() }) {
            val keys = Keys()
            phone.input.addTextChangedListener(keys)
            phone.input.setText("good film ".repeat(10_000))
            phone.input.removeTextChangedListener(keys)
            phone.settle { phone.chat.state.value.draft.answer != null }
            phone.input.setText("")
            keys.held.ms.max()
        }
        println("main thread, a paste of 100,000 characters, in ms by round: ${shown(times)}")
        assertTrue(times.min() < LONGEST_MS)
    }

    /** Some rounds, and more while the quietest is none that may be: so many that the virtual machine has compiled all that they run. */
    private fun <T> rounds(quietest: (List<T>) -> Double, round: () -> T): List<T> = buildList {
        while (size < ROUNDS || size < MOST_ROUNDS && quietest(this) >= LONGEST_MS) add(round())
    }

    private fun shown(times: List<Double>) = times.joinToString { "%.2f".format(it) }

    private companion object {
        const val ROUNDS = 10
        const val MOST_ROUNDS = 60
        const val LONGEST_MS = 4.0 // a quarter of a frame at 60 Hz
    }
}
