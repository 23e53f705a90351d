/*
 * Runs the chat: does what its state asks for and puts the outcome back.
 *
 * Takes the models, the bot, the journal. Returns the state as a flow. Every function returns at once, from any thread.
 * Leaves out: Android. Four coroutines watch the state: one opens and closes models, one labels texts, one keeps the
 * conversation, one looks at the memory while somebody looks at the figures.
 */
package io.pocketbert.chat

import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.flow.collectLatest
import kotlinx.coroutines.flow.distinctUntilChanged
import kotlinx.coroutines.flow.map
import kotlinx.coroutines.flow.update
import kotlinx.coroutines.launch
import kotlinx.coroutines.sync.Mutex
import kotlinx.coroutines.sync.withLock
import kotlinx.coroutines.withContext
import java.io.IOException

/** A conversation with the bot, in [scope]; [disk] is where reading and writing may block. */
class Chat(
    private val models: Models,
    private val journal: Journal,
    private val readBot: () -> Bot,
    private val scope: CoroutineScope,
    private val disk: CoroutineDispatcher,
    private val clock: () -> Long = System::nanoTime,
    private val memory: () -> Long? = ::residentBytes,
) {
    private val mutable = MutableStateFlow(ChatState())
    private val turn = Mutex() // who holds it may use or change `open`
    private var open: OpenModel? = null

    val state: StateFlow<ChatState> = mutable.asStateFlow()

    /** The table of answers; null until it is read. */
    @Volatile
    var bot: Bot? = null
        private set

    fun start() {
        scope.launch {
            val (saved, table) = withContext(disk) { journal.read() to readBot() }
            val choices = models.choices()
            bot = table
            mutable.update { it.restored(saved, choices) }
            launch { openWanted() }
            launch { answer(table) }
            launch { keep() }
            launch { watchMemory() }
        }
    }

    fun type(text: String) = mutable.update { it.typed(text) }

    fun send() = mutable.update { it.sent(bot) }

    fun choose(choice: Choice) = mutable.update { it.chosen(choice) }

    fun clear() = mutable.update { it.cleared() }

    fun showSheet(shown: Boolean) = mutable.update { it.copy(sheet = shown) }

    /** Hands the model back until [wake]. */
    fun rest() = mutable.update { it.rested(true) }

    fun wake() = mutable.update { it.rested(false) }

    private suspend fun openWanted() = mutable.map { it.wanted }.distinctUntilChanged().collectLatest { wanted ->
        swap(null)
        if (wanted == null) return@collectLatest
        try {
            val model = withContext(NonCancellable) { models.open(wanted) } // or nobody would close it
            swap(model)
            mutable.update { if (it.wanted == wanted) it.opened(model.card) else it }
        } catch (cancelled: CancellationException) {
            throw cancelled
        } catch (problem: Exception) {
            mutable.update { it.failed(wanted, words(problem)) }
        } catch (problem: LinkageError) { // an engine's native library that this phone cannot load
            mutable.update { it.failed(wanted, words(problem)) }
        }
    }

    /** Closes the model that is open and puts another in its place. Nothing may come between. */
    private suspend fun swap(model: OpenModel?) = withContext(NonCancellable) {
        turn.withLock {
            open?.close()
            open = model
        }
    }

    private suspend fun answer(table: Bot) =
        mutable.map { it.question to it.opened }.distinctUntilChanged().collect { (question, opened) ->
            if (question != null) {
                turn.withLock { open?.takeIf { it.card == opened }?.let { label(question, it, table) } }
            }
        }

    private suspend fun label(question: Question, model: OpenModel, table: Bot) {
        try {
            val start = clock()
            val answer = model.classify(question.text)
            val duration = clock() - start
            mutable.update { if (it.opened == model.card) it.answered(question, answer, duration, table) else it }
        } catch (cancelled: CancellationException) {
            throw cancelled
        } catch (problem: Exception) {
            mutable.update { it.failed(model.card.choice, words(problem)) }
        }
    }

    /** Writes at once what has changed, and then again after [PAUSE_MS] at the earliest. A full disk is tried again. */
    private suspend fun keep() = mutable.map { it.saved }.distinctUntilChanged().collect { saved ->
        withContext(disk) {
            try {
                journal.write(saved)
            } catch (_: IOException) {
                // The next change is written again; the conversation on the screen is whole.
            }
        }
        delay(PAUSE_MS)
    }

    private suspend fun watchMemory() = mutable.map { it.sheet }.distinctUntilChanged().collectLatest { shown ->
        while (shown) {
            val bytes = withContext(disk) { memory() }
            mutable.update { it.copy(memory = bytes) }
            delay(LOOK_MS)
        }
    }

    private fun words(problem: Throwable) = problem.message?.takeIf(String::isNotBlank) ?: problem.javaClass.simpleName

    companion object {
        const val PAUSE_MS = 200L // between two writes of the conversation
        private const val LOOK_MS = 1000L // between two looks at the memory
    }
}
