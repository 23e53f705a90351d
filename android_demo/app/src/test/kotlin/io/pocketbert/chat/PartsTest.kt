/* The journal, the bot's table, the figures, and that none of the screen's logic needs Android. */
package io.pocketbert.chat

import io.pocketbert.core.Prediction
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import java.io.RandomAccessFile
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNotEquals
import kotlin.test.assertNull
import kotlin.test.assertTrue

class PartsTest {
    @get:Rule
    val folder = TemporaryFolder()
    private val file by lazy { File(folder.root, "conversation") }
    private val bot = Bot.read(TABLE)

    @Test
    fun theLogicOfTheScreenImportsNothingOfAndroid() {
        val sources = File("src/main/kotlin/io/pocketbert/chat").walk().filter { it.extension == "kt" }.toList()
        assertTrue(sources.size > 5)
        sources.forEach { source -> assertTrue(source.readLines().none { it.startsWith("import android") }, source.name) }
    }

    @Test
    fun theJournalGivesBackWhateverWasWritten() {
        val odd = listOf("", "😀 \uD800 alone", "مرحبا", "x".repeat(100_000), "tabs\tand\nlines\u0000")
        val messages = odd.mapIndexed { i, text -> Message(i + 1L, Sender.entries[i % 2], text, Prediction("joy", 0.1f * i).takeIf { i > 1 }) }
        val saved = Saved(messages, odd[1], ALBERT)
        Journal(file).write(saved)
        assertEquals(saved, Journal(file).read())
        Journal(file).write(Saved(emptyList(), "", null))
        assertEquals(Saved(emptyList(), "", null), Journal(file).read())
        assertEquals(listOf(file), folder.root.listFiles()!!.toList())
    }

    @Test
    fun aDamagedJournalIsAsGoodAsNone() {
        assertNull(Journal(file).read())
        val saved = Saved(List(3) { Message(it + 1L, Sender.USER, "message $it") }, "draft", ALBERT)
        Journal(file).write(saved)
        val bytes = file.readBytes()
        for (size in bytes.indices) {
            file.writeBytes(bytes.copyOf(size))
            assertNull(Journal(file).read(), "cut after $size bytes")
        }
        for (place in bytes.indices) {
            file.writeBytes(bytes)
            RandomAccessFile(file, "rw").use { it.seek(place.toLong()); it.write(bytes[place].toInt() xor 0xFF) }
            Journal(file).read() // something else or nothing, but no crash
        }
    }

    @Test
    fun aWriteThatFailsLeavesWhatWasThere() {
        Journal(file).write(Saved(emptyList(), "old", null))
        File(folder.root, "conversation.next").mkdir() // nothing can be written there
        assertFailsWith<java.io.IOException> { Journal(file).write(Saved(emptyList(), "new", null)) }
        assertEquals("old", Journal(file).read()?.draft)
    }

    @Test
    fun theBotAnswersByLabelInTurn() {
        val (good, bad) = Prediction("POSITIVE", 0.9f) to Prediction("NEGATIVE", 0.9f)
        assertEquals(listOf("Nice!", "Great!", "Nice!"), (0..2).map { bot.answer(good, it) })
        assertEquals(listOf("Oh no.", "Oh no."), (0..1).map { bot.answer(bad, it) })
        assertEquals("Hm.", bot.answer(Prediction("POSITIVE", 0.6f), 0))
        assertEquals("spam at 93 %", bot.answer(Prediction("spam", 0.93f), 5))
        assertEquals("Hello!", bot.greeting)
        assertEquals(listOf("😊", ""), listOf("POSITIVE", "spam").map(bot::emoji))
    }

    @Test
    fun aTableWithoutSomeLinesStillAnswers() {
        val bare = Bot.read("# nothing\n\n")
        assertEquals("", bare.greeting)
        assertEquals("joy, 90 %", bare.answer(Prediction("joy", 0.9f), 0))
        assertEquals("joy, 20 %", bare.answer(Prediction("joy", 0.2f), 0))
        assertFailsWith<IllegalArgumentException> { Bot.read("POSITIVE no tabs") }
    }

    @Test
    fun theAppsOwnTableIsReadable() {
        val own = Bot.read(File("src/main/assets/bot.tsv").readText())
        assertNotEquals("", own.greeting)
        assertEquals("😊", own.emoji("POSITIVE"))
        assertEquals(mapOf("distilbert" to "DistilBERT", "albert" to "ALBERT"), own.models)
        assertNotEquals(own.answer(Prediction("NEGATIVE", 0.9f), 0), own.answer(Prediction("NEGATIVE", 0.9f), 1))
    }

    @Test
    fun percentilesAreThoseOfTheNewestAnswers() {
        var figures = Figures()
        assertNull(figures.percentileMs(0.5))
        (1..Figures.KEPT + 100).forEach { figures = figures.with(it * 1_000_000L) }
        assertEquals(Figures.KEPT, figures.count)
        assertEquals(300.0, figures.lastMs)
        assertEquals(200.0, figures.percentileMs(0.5))
        assertEquals(290.0, figures.percentileMs(0.95))
        assertEquals(300.0, figures.percentileMs(1.0))
    }

    @Test
    fun memoryIsReadAsLinuxGivesIt() {
        file.writeText("Name:\tx\nVmHWM:\t  2 kB\nVmRSS:\t   1234 kB\n")
        assertEquals(1234L * 1024, residentBytes(file))
        assertNull(residentBytes(File(folder.root, "none")))
    }
}
