/* What happens on the screen, told without a screen: virtual time, and models that answer as fast as a test says. */
package io.pocketbert.chat

import io.pocketbert.core.BundleException
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.test.StandardTestDispatcher
import kotlinx.coroutines.test.TestScope
import kotlinx.coroutines.test.advanceTimeBy
import kotlinx.coroutines.test.runCurrent
import kotlinx.coroutines.test.runTest
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import kotlin.test.assertEquals
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertTrue

@OptIn(ExperimentalCoroutinesApi::class)
class ChatTest {
    @get:Rule
    val folder = TemporaryFolder()
    private val file by lazy { File(folder.root, "conversation") }

    private fun TestScope.chat(models: Models): Chat = Chat(
        models,
        Journal(file),
        { Bot.read(TABLE) },
        backgroundScope,
        StandardTestDispatcher(testScheduler),
        clock = { testScheduler.currentTime * 1_000_000 },
        memory = { 1000 },
    ).apply { start() }

    private fun Chat.says(): List<String> = state.value.messages.map { it.text }

    /** Types letter by letter and looks at the state after every millisecond. */
    private fun TestScope.typeAt(chat: Chat, keysPerSecond: Int, text: String, look: (ChatState) -> Unit) {
        for (i in 1..text.length) {
            chat.type(text.take(i))
            look(chat.state.value)
            repeat(1000 / keysPerSecond) {
                advanceTimeBy(1)
                runCurrent()
                look(chat.state.value)
            }
        }
    }

    @Test
    fun theLabelOfTheTextBeingTypedIsNeverAnotherTexts() = runTest {
        for (answerMs in listOf(2L, 30L, 90L)) {
            for (keys in listOf(5, 15, 50)) {
                val models = FakeModels(answerMs)
                val chat = chat(models)
                runCurrent()
                var answers = 0
                typeAt(chat, keys, "what a good film that was") { state ->
                    state.draft.answer?.let {
                        assertEquals(truth(state.draft.text), it, "at $keys keys a second, $answerMs ms an answer")
                        answers++
                    }
                }
                advanceTimeBy(2 * answerMs + 1)
                assertEquals(truth("what a good film that was"), chat.state.value.draft.answer, "the newest text is answered")
                if (answerMs < 1000 / keys) assertTrue(answers > 0, "labels change while typing")
                file.delete()
            }
        }
    }

    @Test
    fun textsThatWereOvertakenAreNotAskedAbout() = runTest {
        val models = FakeModels(answerMs = 90)
        val chat = chat(models)
        runCurrent()
        typeAt(chat, 50, "good film") {}
        advanceTimeBy(200)
        assertEquals(listOf("g", "good ", "good film"), models.asked, "one in five at 20 ms a key and 90 ms an answer")
    }

    @Test
    fun aMessageKeepsTheLabelItHadWhileItWasTyped() = runTest {
        val models = FakeModels(answerMs = 5)
        val chat = chat(models)
        chat.type("good film")
        advanceTimeBy(10)
        chat.send()
        assertEquals(listOf("good film", "Nice!"), chat.says(), "the bot answers at once")
        assertEquals(truth("good film").first(), chat.state.value.messages[0].verdict)
        assertEquals(listOf("good film"), models.asked)
        assertEquals("", chat.state.value.draft.text)
    }

    @Test
    fun aMessageSentBeforeItsLabelIsThereGetsItLater() = runTest {
        val chat = chat(FakeModels(answerMs = 50))
        runCurrent()
        chat.type("good film")
        chat.send()
        chat.type("bad")
        assertNull(chat.state.value.messages.single().verdict)
        advanceTimeBy(51)
        assertEquals(listOf("good film", "Nice!"), chat.says())
        assertNull(chat.state.value.draft.answer, "the answer to the message is not the draft's")
        advanceTimeBy(51)
        assertEquals(truth("bad"), chat.state.value.draft.answer)
    }

    @Test
    fun messagesSentInARowAreAnsweredInTurn() = runTest {
        val chat = chat(FakeModels(answerMs = 50, openMs = 500))
        for (text in listOf("good", "bad", "  good soup ")) {
            chat.type(text)
            chat.send()
        }
        advanceTimeBy(1000)
        assertEquals(listOf("good", "bad", "good soup", "Nice!", "Oh no.", "Nice!"), chat.says())
    }

    @Test
    fun anEmptyOrBlankTextIsNeitherLabelledNorSent() = runTest {
        val models = FakeModels()
        val chat = chat(models)
        for (text in listOf("", " ", "\n\t  ")) {
            chat.type(text)
            runCurrent()
            chat.send()
            assertNull(chat.state.value.draft.answer)
        }
        assertEquals(emptyList(), chat.says())
        assertEquals(emptyList(), models.asked)
    }

    @Test
    fun aModelThatCannotBeUsedIsReplacedByItsOtherEngineAndTheStateSaysWhy() = runTest {
        val models = FakeModels(broken = mutableMapOf(ALBERT to BundleException("model.tflite is not the file that was exported")))
        val chat = chat(models)
        chat.type("good")
        runCurrent()
        val state = chat.state.value
        assertEquals(ALBERT_EXECUTORCH, state.opened?.choice)
        assertEquals(ALBERT, state.wish)
        assertEquals("model.tflite is not the file that was exported", state.failures[ALBERT])
        assertEquals(truth("good"), state.draft.answer)
    }

    @Test
    fun anEngineWithoutItsNativeLibraryIsReplacedToo() = runTest {
        val chat = chat(FakeModels(broken = mutableMapOf(ALBERT to UnsatisfiedLinkError("no library for this processor"))))
        runCurrent()
        assertEquals(ALBERT_EXECUTORCH, chat.state.value.opened?.choice)
        assertEquals("no library for this processor", chat.state.value.failures[ALBERT])
    }

    @Test
    fun anEngineThatBreaksDownWhileItAnswersIsReplacedAndTheTextIsAnswered() = runTest {
        val models = FakeModels()
        models.failing = { models.opened.last() == ALBERT && it == "good" }
        val chat = chat(models)
        chat.type("good")
        chat.send()
        runCurrent()
        assertEquals(listOf("good", "Nice!"), chat.says())
        assertEquals("it broke down", chat.state.value.failures[ALBERT])
        assertEquals(1, models.held)
    }

    @Test
    fun withoutAnyModelTheChatSaysSoAndTheConversationGoesOn() = runTest {
        val chat = chat(FakeModels(broken = CHOICES.associateWith { BundleException("the disk is full") }.toMutableMap()))
        chat.type("good")
        runCurrent()
        assertTrue(chat.state.value.helpless)
        chat.send()
        runCurrent()
        assertEquals(listOf("good"), chat.says())
    }

    @Test
    fun anotherModelIsOpenedWhenTheUserPicksItAndTheDraftIsReadAgain() = runTest {
        val models = FakeModels(answerMs = 5, openMs = 100)
        val chat = chat(models)
        chat.type("good")
        advanceTimeBy(110)
        assertNotNull(chat.state.value.draft.answer)
        chat.choose(DISTILBERT)
        assertNull(chat.state.value.draft.answer, "the label of another model is stale")
        assertNull(chat.state.value.opened)
        advanceTimeBy(110)
        assertEquals(DISTILBERT, chat.state.value.opened?.choice)
        assertEquals(truth("good"), chat.state.value.draft.answer)
        assertEquals(1, chat.state.value.figures.count, "figures are those of one model")
        assertEquals(1, models.held)
    }

    @Test
    fun aModelThatIsPickedWhileItAnswersIsNotClosedBeforeTheAnswer() = runTest {
        val models = FakeModels(answerMs = 50)
        val chat = chat(models)
        runCurrent()
        chat.type("good")
        advanceTimeBy(10)
        chat.choose(DISTILBERT)
        advanceTimeBy(1)
        chat.choose(ALBERT_EXECUTORCH)
        advanceTimeBy(200)
        assertEquals(ALBERT_EXECUTORCH, chat.state.value.opened?.choice)
        assertEquals(truth("good"), chat.state.value.draft.answer)
        assertEquals(1, models.held)
        assertEquals(emptyMap(), chat.state.value.failures, "no answer was cut off")
    }

    @Test
    fun pickingAndPickingLeavesOneModelOpen() = runTest {
        val models = FakeModels(answerMs = 3, openMs = 7)
        val chat = chat(models)
        chat.type("good")
        for (i in 0 until 50) {
            advanceTimeBy((i % 11).toLong())
            chat.choose(CHOICES[i * 7 % 4])
        }
        advanceTimeBy(1000)
        assertEquals(1, models.held)
        assertEquals(CHOICES[49 * 7 % 4], chat.state.value.opened?.choice)
        assertEquals(emptyMap(), chat.state.value.failures)
        assertEquals(truth("good"), chat.state.value.draft.answer)
    }

    @Test
    fun aModelThatFailedGetsAnotherChanceWhenItIsPickedAgain() = runTest {
        val models = FakeModels(broken = mutableMapOf(ALBERT to BundleException("the disk is full")))
        val chat = chat(models)
        runCurrent()
        models.broken.clear()
        chat.choose(ALBERT)
        runCurrent()
        assertEquals(ALBERT, chat.state.value.opened?.choice)
        assertEquals(emptyMap(), chat.state.value.failures)
    }

    @Test
    fun whileItRestsNoModelIsHeldAndWhenItWakesTheDraftIsReadAgain() = runTest {
        val models = FakeModels()
        val chat = chat(models)
        chat.type("good")
        runCurrent()
        chat.rest()
        runCurrent()
        assertEquals(0, models.held)
        chat.wake()
        runCurrent()
        assertEquals(1, models.held)
        assertEquals(truth("good"), chat.state.value.draft.answer)
    }

    @Test
    fun theConversationTheDraftAndTheWishSurviveTheProcess() = runTest {
        val first = chat(FakeModels())
        runCurrent()
        first.choose(DISTILBERT)
        first.type("good")
        first.send()
        first.type("half a thou")
        advanceTimeBy(Chat.PAUSE_MS + 1)
        val second = chat(FakeModels())
        runCurrent()
        assertEquals(first.state.value.messages, second.state.value.messages)
        assertEquals("half a thou", second.state.value.draft.text)
        assertEquals(truth("half a thou"), second.state.value.draft.answer)
        assertEquals(DISTILBERT, second.state.value.opened?.choice)
    }

    @Test
    fun aMessageThatWasNotAnsweredBeforeTheKillIsAnsweredAfterIt() = runTest {
        val first = chat(FakeModels(answerMs = 1_000_000))
        first.type("good")
        runCurrent()
        first.send()
        advanceTimeBy(Chat.PAUSE_MS + 1)
        val second = chat(FakeModels())
        runCurrent()
        assertEquals(listOf("good", "Nice!"), second.says())
    }

    @Test
    fun whatIsTypedAndSentBeforeTheOldConversationIsThereComesAfterIt() = runTest {
        Journal(file).write(Saved(listOf(Message(7, Sender.USER, "bad", truth("bad").first())), "old draft", ALBERT))
        val chat = chat(FakeModels())
        chat.type("good")
        chat.send()
        chat.type("new draft")
        runCurrent()
        assertEquals(listOf("bad", "good", "Nice!"), chat.says())
        assertEquals(listOf(7L, 8L, 9L), chat.state.value.messages.map { it.id })
        assertEquals("new draft", chat.state.value.draft.text)
    }

    @Test
    fun aConversationIsBoundedAndCanBeCleared() = runTest {
        val chat = chat(FakeModels())
        repeat(KEPT_MESSAGES) {
            chat.type("good $it")
            runCurrent()
            chat.send()
        }
        assertEquals(KEPT_MESSAGES, chat.state.value.messages.size)
        assertTrue(chat.state.value.messages.zipWithNext().all { (a, b) -> a.id < b.id })
        chat.clear()
        assertEquals(emptyList(), chat.says())
    }

    @Test
    fun aDiskThatIsFullStopsNothing() = runTest {
        file.mkdir() // nothing can be renamed into its place
        File(file, "full").createNewFile()
        val chat = chat(FakeModels())
        chat.type("good")
        runCurrent()
        chat.send()
        advanceTimeBy(1000)
        assertEquals(listOf("good", "Nice!"), chat.says())
    }

    @Test
    fun figuresCountEveryAnswerOfTheModelInUse() = runTest {
        val chat = chat(FakeModels(answerMs = 4))
        runCurrent()
        for (text in listOf("a", "ab", "abc")) {
            chat.type(text)
            advanceTimeBy(10)
        }
        val figures = chat.state.value.figures
        assertEquals(3, figures.count)
        assertEquals(4.0, figures.lastMs)
        assertEquals(4.0, figures.percentileMs(0.95))
    }
}
