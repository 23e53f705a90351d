/* The app on a phone's framework: typed into, pasted into, turned, ended and brought back, with models that a test controls. */
package io.pocketbert.app

import android.content.ClipData
import android.content.ClipboardManager
import android.content.ComponentCallbacks2
import android.content.pm.PackageManager
import android.graphics.Color
import android.os.Looper
import android.view.View
import android.view.ViewGroup
import android.widget.ImageButton
import android.widget.RadioGroup
import android.widget.TextView
import io.pocketbert.chat.ALBERT
import io.pocketbert.chat.ALBERT_EXECUTORCH
import io.pocketbert.chat.CHOICES
import io.pocketbert.chat.DISTILBERT
import io.pocketbert.chat.FakeModels
import io.pocketbert.chat.truth
import io.pocketbert.core.BundleException
import org.junit.Before
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import org.robolectric.shadows.ShadowDialog
import java.text.NumberFormat
import kotlin.math.pow
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertNotNull
import kotlin.test.assertNotSame
import kotlin.test.assertNull
import kotlin.test.assertTrue

private const val PORTRAIT = "w411dp-h891dp-xhdpi"
private const val LANDSCAPE = "w891dp-h411dp-land-xhdpi"

@RunWith(PhoneRunner::class)
@GraphicsMode(GraphicsMode.Mode.NATIVE)
@Config(sdk = [35], application = TestApplication::class, qualifiers = PORTRAIT)
class ScreenTest {
    private val percents = NumberFormat.getPercentInstance().apply { minimumFractionDigits = 1 }

    private fun use(models: FakeModels) = models.also { TestApplication.models = { _ -> it } }

    @Before
    fun quickModels() {
        use(FakeModels())
    }

    /** What the strip above the input field must read for this text. */
    private fun shownFor(text: String) = truth(text).first().let {
        "${if (it.label == "POSITIVE") "😊 Positive" else "😕 Negative"} ${percents.format(it.score)}"
    }

    private fun Phone.shown() = "${text(R.id.label)} ${text(R.id.percent)}".trim()

    private fun Phone.typeAt(keysPerSecond: Int, text: String, look: () -> Unit) {
        for (letter in text) {
            val next = System.nanoTime() + 1_000_000_000 / keysPerSecond
            input.append(letter.toString())
            look()
            do { // once at least, where others hold the processor
                Thread.sleep(1)
                shadowOf(Looper.getMainLooper()).idle()
                look()
            } while (System.nanoTime() < next)
        }
    }

    @Test
    fun theLabelShownIsAlwaysThatOfTheTextShown() {
        for (answerMs in listOf(1L, 30L)) {
            use(FakeModels(answerMs))
            for ((keys, text) in listOf(5 to "a good", 15 to "what a good film", 50 to "what a good film that was, i would see it again")) {
                val phone = Phone()
                phone.application.forget()
                phone.start()
                val shown = mutableSetOf<String>()
                phone.typeAt(keys, text) {
                    if (phone.text(R.id.percent).isNotEmpty()) assertEquals(shownFor(phone.input.text.toString()), phone.shown())
                    shown += phone.shown()
                }
                phone.settle { phone.shown() == shownFor(text) }
                if (answerMs == 1L) assertTrue(shown.size > text.length / 4, "labels change while typing: $shown")
                phone.controller.pause().stop().destroy()
            }
        }
    }

    @Test
    fun aMessageIsSentAndAnswered() {
        val phone = Phone().start()
        assertFalse(phone.activity.findViewById<View>(R.id.send).isEnabled)
        phone.say("good soup")
        assertEquals("", phone.input.text.toString())
        assertEquals("Type, and watch the label change", phone.shown())
        val percent = percents.format(truth("good soup").first().score)
        assertEquals("You said: good soup. Label: Positive, $percent", phone.rows()[1])
        assertEquals("The bot said: That sounds lovely! What did you like most?", phone.rows()[2])
    }

    @Test
    fun aPasteOfAHundredThousandCharactersIsReadSentAndKept() {
        val phone = Phone().start()
        val book = "good 😀 ".repeat(100_000 / 8 + 1).take(100_000)
        (phone.activity.getSystemService(ClipboardManager::class.java)).setPrimaryClip(ClipData.newPlainText("book", book))
        phone.input.onTextContextMenuItem(android.R.id.paste)
        phone.settle { phone.shown() == shownFor(book) }
        phone.send()
        assertEquals(book.trim(), phone.chat.state.value.messages[0].text)
        phone.layOut()
        val bubble = phone.list.adapter.getView(1, null, phone.list).findViewById<TextView>(R.id.bubble)
        assertTrue(bubble.text.length < 2100 && "more characters" in bubble.text, "the bubble shows the beginning")
        Thread.sleep(300)
        phone.killAndReturn()
        assertEquals(book.trim(), phone.chat.state.value.messages[0].text)
    }

    @Test
    fun oddPastesAreReadAndSent() {
        val phone = Phone().start()
        for (text in listOf("\uD800 alone", "👩‍👩‍👧‍👦".repeat(50), "مرحبا بالعالم good", "\u202Egood\u202C", "a\u0000b", "e" + "\u0301".repeat(500))) {
            phone.say(text)
            assertEquals(text, phone.chat.state.value.messages.last { it.verdict != null }.text)
            phone.picture()
        }
    }

    @Test
    fun emptyPastesShowNothing() {
        val phone = Phone().start()
        for (text in listOf("", "   ", "\n\n")) {
            phone.input.setText(text)
            phone.settle()
            assertEquals("Type, and watch the label change", phone.shown())
            phone.activity.findViewById<ImageButton>(R.id.send).performClick()
            assertEquals(emptyList(), phone.chat.state.value.messages)
        }
    }

    @Test
    fun aRotationKeepsConversationDraftSheetAndModel() {
        val models = use(FakeModels())
        val phone = Phone().start().say("good soup").type("and the bread")
        phone.chat.showSheet(true)
        phone.settle()
        val (before, rows) = phone.activity to phone.rows()
        phone.rotate(LANDSCAPE)
        assertNotSame(before, phone.activity)
        assertEquals(rows, phone.rows())
        assertEquals("and the bread", phone.input.text.toString())
        assertEquals(shownFor("and the bread"), phone.shown())
        assertTrue(ShadowDialog.getLatestDialog().isShowing)
        assertEquals(listOf(ALBERT), models.opened, "the model was not opened again")
        assertEquals(listOf("good soup", "and the bread"), models.asked, "nor asked again")
    }

    @Test
    fun anEndedProcessComesBackWithConversationAndDraft() {
        val models = use(FakeModels())
        val phone = Phone().start().say("good soup").type("half a thou")
        val rows = phone.rows()
        Thread.sleep(300) // two writes are this far apart at most
        phone.killAndReturn()
        assertEquals(rows, phone.rows())
        assertEquals("half a thou", phone.input.text.toString())
        phone.settle { phone.shown() == shownFor("half a thou") }
        assertEquals(2, models.opened.size)
    }

    @Test
    fun memoryIsGivenBackInTheBackgroundAndTheModelReturnsWithTheUser() {
        val models = use(FakeModels())
        val phone = Phone().start().type("good")
        phone.controller.pause().stop()
        phone.application.onTrimMemory(ComponentCallbacks2.TRIM_MEMORY_UI_HIDDEN)
        phone.settle()
        assertEquals(1, models.held, "just hidden: the user may come right back")
        phone.application.onTrimMemory(ComponentCallbacks2.TRIM_MEMORY_BACKGROUND)
        phone.settle { models.held == 0 }
        phone.controller.start().resume()
        phone.settle { phone.shown() == shownFor("good") }
        assertEquals(1, models.held)
    }

    @Test
    fun whatCannotBeUsedIsSaidInWordsAndTheOtherEngineAnswers() {
        use(FakeModels(broken = mutableMapOf(ALBERT to BundleException("model.tflite is damaged: export the bundle again."))))
        val phone = Phone().start().type("good")
        assertEquals(
            "ALBERT with LiteRT cannot be used: model.tflite is damaged: export the bundle again. ALBERT with ExecuTorch answers instead.",
            phone.text(R.id.notice),
        )
        assertEquals(shownFor("good"), phone.shown())
        assertTrue(phone.text(R.id.status).startsWith("ALBERT · ExecuTorch"))
        phone.chat.choose(DISTILBERT)
        phone.settle { phone.chat.state.value.opened?.choice == DISTILBERT }
        assertEquals("", phone.text(R.id.notice), "what was picked answers: nothing to say")
    }

    @Test
    fun withoutAnyModelTheScreenSaysSoAndMessagesCanStillBeWritten() {
        use(FakeModels(broken = CHOICES.associateWith { BundleException("the disk is full") }.toMutableMap()))
        val phone = Phone().start().type("hello").send()
        assertEquals("No model can be used. ALBERT with LiteRT: the disk is full.", phone.text(R.id.notice))
        assertEquals("No model can be used", phone.text(R.id.status))
        assertEquals("", phone.text(R.id.label))
        assertEquals("You said: hello", phone.rows().last())
    }

    @Test
    fun theSheetPicksModelAndEngineAndShowsTheirFigures() {
        val models = use(FakeModels())
        val phone = Phone().start().say("good soup")
        phone.activity.findViewById<View>(R.id.tune).performClick()
        phone.settle { ShadowDialog.getLatestDialog()?.isShowing == true && phone.chat.state.value.memory != null }
        val sheet = ShadowDialog.getLatestDialog()
        val figures = sheet.findViewById<ViewGroup>(R.id.figures)
        val values = (0 until figures.childCount).associate { i ->
            val row = figures.getChildAt(i)
            row.findViewById<TextView>(R.id.name).text.toString() to row.findViewById<TextView>(R.id.value).text.toString()
        }
        assertEquals("1", values["Answers timed"])
        assertEquals("4.1 MB", values["Model file"])
        assertEquals("Passed, off by at most 0.0012", values["Self-check"])
        assertTrue(values.getValue("Median").endsWith(" ms") && values.getValue("Memory of the app").endsWith("B"))
        sheet.findViewById<RadioGroup>(R.id.engines).getChildAt(1).performClick()
        phone.settle { models.opened.last() == ALBERT_EXECUTORCH && phone.chat.state.value.opened != null }
        sheet.findViewById<RadioGroup>(R.id.models).getChildAt(1).performClick()
        phone.settle { models.opened.last().model == "distilbert" && phone.chat.state.value.opened != null }
        assertEquals("executorch", models.opened.last().engine, "the engine stays when the model changes")
        sheet.findViewById<View>(R.id.clear).performClick()
        phone.settle()
        assertFalse(sheet.isShowing)
        assertEquals(1, phone.rows().size)
    }

    @Test
    fun theKeyboardAndTheBarsCoverNothing() {
        val phone = Phone().start().bars(top = 24, bottom = 48, keyboard = 300)
        val density = phone.activity.resources.displayMetrics.density
        val send = IntArray(2).also(phone.activity.findViewById<View>(R.id.send)::getLocationInWindow)
        val bottom = send[1] + phone.activity.findViewById<View>(R.id.send).height
        assertTrue(bottom <= phone.activity.window.decorView.height - 300 * density)
        val tune = IntArray(2).also(phone.activity.findViewById<View>(R.id.tune)::getLocationInWindow)
        assertTrue(tune[1] >= 24 * density)
        phone.bars(top = 24, bottom = 48)
        val after = IntArray(2).also(phone.activity.findViewById<View>(R.id.send)::getLocationInWindow)
        assertEquals(send[1] + (252 * density).toInt(), after[1], "without the keyboard it goes down again")
    }

    @Test
    fun whatCanBeTappedIsLargeEnoughAndHasANameForTalkBack() {
        val phone = Phone().start().say("good")
        phone.layOut()
        val smallest = 48 * phone.activity.resources.displayMetrics.density
        fun check(view: View) {
            if (view.isShown && view.isClickable && view !is ViewGroup) {
                val name = view.contentDescription ?: (view as? TextView)?.let { it.text.ifEmpty { it.hint } }
                assertTrue(!name.isNullOrBlank(), "$view has a name")
                assertTrue(view.height >= smallest && view.width >= smallest, "$view is large enough")
            }
            if (view is ViewGroup) (0 until view.childCount).forEach { check(view.getChildAt(it)) }
        }
        check(phone.activity.findViewById(R.id.root))
        phone.type("good soup")
        val verdict = phone.activity.findViewById<View>(R.id.verdict)
        assertEquals("Label while you type: Positive, ${percents.format(truth("good soup").first().score)}", verdict.contentDescription)
        val last = phone.list.adapter.getView(phone.list.adapter.count - 1, null, phone.list)
        assertEquals(View.ACCESSIBILITY_LIVE_REGION_POLITE, last.accessibilityLiveRegion, "a new answer is read out")
    }

    @Test
    @Config(qualifiers = "ar-ldrtl-$PORTRAIT")
    fun rightToLeftIsMirrored() {
        val phone = Phone().start().say("good")
        phone.layOut()
        assertTrue(phone.activity.findViewById<View>(R.id.send).left < phone.input.left)
        val bar = phone.activity.findViewById<View>(R.id.bar)
        assertTrue(bar.paddingRight > bar.paddingLeft)
        assertEquals("رسالة", phone.input.hint.toString())
    }

    @Test
    @Config(qualifiers = "+night")
    fun textIsReadableInTheDark() = textIsReadable()

    @Test
    fun textIsReadable() {
        val context = Phone().application
        val labels = context.resources.obtainTypedArray(R.array.labels).run { List(length()) { getColor(it, 0) }.also { recycle() } }
        fun color(id: Int) = context.getColor(id)
        val surfaces = listOf(R.color.surface, R.color.background).map(::color)
        val pairs = labels.flatMap { label -> surfaces.map { label to it } } + surfaces.flatMap { surface ->
            listOf(R.color.ink, R.color.ink_soft, R.color.accent).map { color(it) to surface }
        } + listOf(
            R.color.on_bubble_user to R.color.bubble_user, R.color.ink to R.color.bubble_bot, R.color.on_notice to R.color.notice,
            R.color.on_error to R.color.error, R.color.on_accent to R.color.accent, R.color.ink to R.color.accent_soft,
        ).map { (ink, paper) -> color(ink) to color(paper) }
        for ((ink, paper) in pairs) {
            assertTrue(contrast(ink, paper) >= 4.5, "#%06X on #%06X: %.2f".format(ink and 0xFFFFFF, paper and 0xFFFFFF, contrast(ink, paper)))
        }
    }

    /** WCAG 2.1: https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio */
    private fun contrast(a: Int, b: Int): Double {
        val (dark, light) = listOf(luminance(a), luminance(b)).sorted()
        return (light + 0.05) / (dark + 0.05)
    }

    private fun luminance(color: Int): Double {
        val (r, g, b) = listOf(Color.red(color), Color.green(color), Color.blue(color)).map {
            (it / 255.0).let { c -> if (c <= 0.03928) c / 12.92 else ((c + 0.055) / 1.055).pow(2.4) }
        }
        return 0.2126 * r + 0.7152 * g + 0.0722 * b
    }

    @Test
    fun theAppAsksForNoPermission() {
        val application = Phone().application
        val info = application.packageManager.getPackageInfo(application.packageName, PackageManager.GET_PERMISSIONS)
        assertNull(info.requestedPermissions)
        assertEquals(36, info.applicationInfo?.targetSdkVersion)
        assertNotNull(application.getDrawable(R.mipmap.launcher))
    }

    @Test
    @Config(sdk = [26])
    fun theOldestAndroidRunsItToo() {
        val phone = Phone().start().say("good soup").type("bad")
        assertEquals(shownFor("bad"), phone.shown())
        phone.chat.showSheet(true)
        phone.settle { ShadowDialog.getLatestDialog()?.isShowing == true }
        phone.rotate(LANDSCAPE)
        assertEquals(shownFor("bad"), phone.shown())
    }
}
